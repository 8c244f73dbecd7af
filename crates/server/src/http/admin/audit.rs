//! The audit log: who did what to devices, tokens and the books, when, and from where.

use axum::{Json as Answer, extract};
use mstore_protocol::{DeviceId, MerchantId, Problem, Timestamp};
use mstore_store::AuditOf;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    super::{State, caller::Admin, extract::Ask, problem::Refusal},
    PageAnswer, Paging,
};

/// Which acts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Acts {
    /// Of one merchant only.
    #[param(value_type = Option<String>)]
    merchant: Option<MerchantId>,
    /// About one device only.
    #[param(value_type = Option<String>)]
    device: Option<DeviceId>,
    /// By this token's name or device's id only.
    actor: Option<String>,
    /// Such as `device.revoked`.
    action: Option<String>,
    /// Not before this time.
    #[param(value_type = Option<String>)]
    since: Option<Timestamp>,
}

/// Acts, newest first, a page; a merchant's token sees those of its merchant.
#[utoipa::path(
    get,
    path = "/v1/admin/audit",
    tag = "admin",
    operation_id = "list_acts",
    params(Acts, Paging),
    responses((status = 200, body = PageAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn list(
    extract::State(app): State,
    admin: Admin,
    Ask(acts): Ask<Acts>,
    Ask(paging): Ask<Paging>,
) -> Result<Answer<PageAnswer>, Refusal> {
    let Acts { merchant, device, actor, action, since } = acts;
    if let Some(merchant) = &merchant {
        admin.check_merchant(merchant.as_str())?;
    }
    let of = AuditOf { merchant: admin.only().cloned().or(merchant), device, actor, action, since };
    let page = app.store.audit(of, paging.after.as_deref(), paging.limit()?).await?;
    Ok(Answer(PageAnswer { items: page.items, next: page.next }))
}
