//! `/api/v1/windows/{name}/tenants`: who shares the capacity of a window.

use crate::admin::Admin;
use crate::admin::complaint::{Complaint, ComplaintBody};
use axum::Json;
use axum::extract::{Path, State};
use hapax_core::window::{Quota, Tenant, TenantFacts};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The tenants of a window.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Tenants {
    /// what divides the capacity: `none`, `vhost`, `user` or `exchange`
    #[schema(value_type = String, example = "user")]
    quota: Quota,
    /// ids that each tenant may have, whatever the others do; null without a quota
    share: Option<usize>,
    /// those with the most ids first
    tenants: Vec<TenantShown>,
}

/// One tenant of a window.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(super) struct TenantShown {
    /// its name, `EXCHANGE@VHOST` for an exchange. Null for the common tenant, and for one whose ids a store has brought and who has
    /// not published since
    name: Option<String>,
    /// true for those who are no tenants of their own: users without a name, and all beyond 255
    common: bool,
    /// its ids
    entries: usize,
    /// its ids that had to make room before their TTL was over. If another tenant gets its place, they count as the common one's
    evicted: u64,
}

impl From<TenantFacts> for TenantShown {
    fn from(TenantFacts { tenant, name, entries, evicted }: TenantFacts) -> TenantShown {
        TenantShown { name: name.map(String::from), common: tenant == Tenant::COMMON, entries, evicted }
    }
}

/// List the tenants that share a window's capacity, those with the most ids first
#[utoipa::path(get, path = "/api/v1/windows/{name}/tenants", tag = "windows", security(("token" = [])),
    params(("name" = String, Path, description = "the window's name")),
    responses((status = 200, body = Tenants), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody), (status = 404, body = ComplaintBody)))]
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<Tenants>, Complaint> {
    let window = &admin.find(&name)?.watched.window;
    let mut tenants = window.tenants();
    tenants.sort_by_key(|facts| std::cmp::Reverse(facts.entries));
    let active = tenants.iter().filter(|facts| facts.entries > 0).count().max(1);
    let quota = window.rules().quota;
    let share = window.capacity().filter(|_| quota.is_some()).map(|capacity| capacity / active);
    Ok(Json(Tenants { quota, share, tenants: tenants.into_iter().map(TenantShown::from).collect() }))
}
