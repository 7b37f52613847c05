//! The names of a window's tenants, for people to read. Nothing depends on them.

use super::{Key, Tenant};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};

/// The most names that are kept: all shards of a window together have no more tenants.
const KEPT: usize = Key::LOCKS * (Tenant::MOST + 1);

/// The names of tenants, as far as they have published since the start.
#[derive(Debug, Default)]
pub(super) struct TenantNames(Mutex<HashMap<Tenant, Box<str>>>);

impl TenantNames {
    /// Notes a name. If there are too many, those go first that have no ids, as `has_ids` says.
    pub(super) fn note(&self, tenant: Tenant, name: &str, has_ids: impl FnOnce() -> BTreeSet<Tenant>) {
        let mut names = self.0.lock();
        if names.contains_key(&tenant) {
            return;
        }
        if names.len() >= KEPT {
            let kept = has_ids();
            names.retain(|tenant, _| kept.contains(tenant));
        }
        if names.len() < KEPT {
            names.insert(tenant, name.into());
        }
    }

    /// Returns the name of a tenant.
    pub(super) fn of(&self, tenant: Tenant) -> Option<Box<str>> {
        self.0.lock().get(&tenant).cloned()
    }

    /// Returns the bytes that the names take, about.
    pub(super) fn bytes(&self) -> usize {
        self.0.lock().capacity() * 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_who_makes_names_does_not_make_them_grow() {
        let names = TenantNames::default();
        let tenant = |n: usize| {
            let [.., high, low] = n.to_be_bytes();
            Tenant::from_octets([1, high, low])
        };
        names.note(tenant(0), "orders", BTreeSet::new);
        for n in 1..20_000 {
            names.note(tenant(n), "made", || BTreeSet::from([tenant(0)]));
        }
        assert!(names.0.lock().len() <= KEPT);
        assert_eq!(names.of(tenant(0)).as_deref(), Some("orders"));
    }
}
