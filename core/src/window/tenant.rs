//! The tenants among whom a window divides its capacity: each id belongs to one.

/// How a window's capacity is divided: each vhost, user or exchange is a tenant.
///
/// In a full window the tenant with the most ids makes room. So a tenant that has no more than `capacity / tenants` ids loses none,
/// whatever the others do, and a share that its tenant does not need is there for the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Quota {
    /// Nothing: the id that was least recently seen makes room, whosever it is.
    #[default]
    None,
    /// Each vhost is a tenant.
    Vhost,
    /// Each user is a tenant, in all vhosts together.
    User,
    /// Each exchange of each vhost is a tenant.
    Exchange,
}

impl Quota {
    /// Every rule, for error messages.
    pub const ALL: [Quota; 4] = [Quota::None, Quota::Vhost, Quota::User, Quota::Exchange];

    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Quota::None => "none",
            Quota::Vhost => "vhost",
            Quota::User => "user",
            Quota::Exchange => "exchange",
        }
    }

    /// Returns true if there are tenants.
    pub fn is_some(self) -> bool {
        self != Quota::None
    }
}

/// A tenant: 24 bits of a keyed digest of its name. Two tenants with the same bits share their part; without the secret nobody can
/// choose a name that has the bits of another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tenant([u8; 3]);

impl Tenant {
    /// Everybody who is no tenant: users whose name nobody knows, and those who come when there are as many tenants as a window can
    /// tell apart. They are one tenant.
    pub const COMMON: Tenant = Tenant([0; 3]);

    /// The tenants that a window can tell apart at a time, beside the common one.
    pub const MOST: usize = 255;

    /// Makes it of a digest.
    pub(super) fn of_digest(digest: [u8; 16]) -> Tenant {
        let [one, two, three, ..] = digest;
        if [one, two, three] == [0; 3] { Tenant([1, 0, 0]) } else { Tenant([one, two, three]) }
    }

    /// Makes it of the octets that a store has kept.
    pub const fn from_octets(octets: [u8; 3]) -> Tenant {
        Tenant(octets)
    }

    /// Returns its octets: zeros for the common one.
    pub const fn octets(self) -> [u8; 3] {
        self.0
    }
}

/// The facts that a window knows about one tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantFacts {
    /// which
    pub tenant: Tenant,
    /// its name; `None` for the common one, and for one whose ids a store has brought and who has not published since
    pub name: Option<Box<str>>,
    /// its ids
    pub entries: usize,
    /// its ids that had to make room before their TTL was over
    pub evicted: u64,
}
