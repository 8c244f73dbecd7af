//! Whether every till is fresh, at a glance: branches and the worst devices as of the last look, and the service levels.

use std::ops::Bound;

use axum::{Json as Answer, extract};
use mstore_protocol::{BranchId, BranchKey, MerchantId, Problem, ServiceFigures, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{State, caller::Admin, extract::Ask, problem::Refusal},
    Paging,
};
use crate::fleet::{Level, Till, Tills, WINDOWS};

/// Whose.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Whose {
    /// Only this merchant's.
    merchant: Option<String>,
}

impl Whose {
    /// Those that were asked for; all that the token may see, if nothing was.
    fn seen_by(&self, admin: &Admin) -> Result<Option<MerchantId>, Refusal> {
        if let Some(wanted) = &self.merchant {
            admin.check_merchant(wanted)?;
        }
        let parse = |text| MerchantId::parse(text).map_err(|error| Refusal::malformed(format!("merchant: {error}")));
        Ok(self.merchant.as_deref().map(parse).transpose()?.or_else(|| admin.only().cloned()))
    }
}

/// The fleet as of the last look; there is one every 30 s.
#[derive(Serialize, ToSchema)]
pub(crate) struct OverviewAnswer {
    /// When that was; null before the first.
    #[schema(value_type = Option<String>)]
    at: Option<Timestamp>,
    /// All devices together.
    total: Tills,
    /// Branches that have devices, by name.
    branches: Vec<BranchTills>,
    /// Pass it as `after` to get the next branches; null at the end.
    next: Option<String>,
    /// The devices to look at first, at most 100, on the first page.
    worst: Vec<WorstTill>,
}

/// The devices of a branch.
#[derive(Serialize, ToSchema)]
pub(crate) struct BranchTills {
    #[schema(value_type = String)]
    merchant: MerchantId,
    #[schema(value_type = String)]
    branch: BranchId,
    #[serde(flatten)]
    tills: Tills,
}

/// A device to look at.
#[derive(Serialize, ToSchema)]
pub(crate) struct WorstTill {
    #[schema(value_type = String)]
    merchant: MerchantId,
    #[schema(value_type = String)]
    branch: BranchId,
    #[serde(flatten)]
    till: Till,
}

/// Branches by freshness, and the devices to look at first.
#[utoipa::path(
    get,
    path = "/v1/admin/overview",
    tag = "admin",
    operation_id = "overview",
    params(Whose, Paging),
    responses((status = 200, body = OverviewAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn overview(
    extract::State(app): State,
    admin: Admin,
    Ask(whose): Ask<Whose>,
    Ask(paging): Ask<Paging>,
) -> Result<Answer<OverviewAnswer>, Refusal> {
    let (limit, merchant) = (paging.limit()?, whose.seen_by(&admin)?);
    let overview = app.fleet.overview();
    let is_asked = |id: &MerchantId| merchant.as_ref().is_none_or(|merchant| merchant == id);
    let after = paging.after.as_deref().map(branch_after).transpose()?;
    let rest = overview.branches.range((after.clone().map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
    let branches: Vec<BranchTills> = rest
        .filter(|(key, _)| is_asked(&key.merchant))
        .take(limit)
        .map(|(key, tills)| BranchTills { merchant: key.merchant.clone(), branch: key.branch.clone(), tills: tills.clone() })
        .collect();
    let next = branches.last().filter(|_| branches.len() == limit).map(|last| format!("{}/{}", last.merchant, last.branch));
    let worst = if after.is_none() { overview.worst.as_slice() } else { &[] };
    let worst = worst.iter().filter(|till| is_asked(&till.key.merchant)).map(|till| WorstTill {
        merchant: till.key.merchant.clone(),
        branch: till.key.branch.clone(),
        till: till.clone(),
    });
    let total = overview.total(merchant.as_ref().map(MerchantId::as_str));
    Ok(Answer(OverviewAnswer { at: overview.at, total, branches, next, worst: worst.collect() }))
}

fn branch_after(text: &str) -> Result<BranchKey, Refusal> {
    let key = text.split_once('/').and_then(|(merchant, branch)| BranchKey::parse(merchant, branch).ok());
    key.ok_or_else(|| Refusal::malformed(format!("after: {text:?} is not the `next` of a page")))
}

/// The service levels.
#[derive(Serialize, ToSchema)]
pub(crate) struct LevelsAnswer {
    windows: Vec<WindowLevels>,
}

/// The service levels of a span of time that ends now.
#[derive(Serialize, ToSchema)]
pub(crate) struct WindowLevels {
    /// `5m`, `1h`, `24h` or `30d`.
    window: &'static str,
    /// What was promised and what was achieved.
    levels: Vec<Level>,
    /// What it was worked out from.
    figures: ServiceFigures,
}

/// The service levels over 5 minutes, an hour, a day and 30 days, with what was promised.
#[utoipa::path(
    get,
    path = "/v1/admin/levels",
    tag = "admin",
    operation_id = "levels",
    params(Whose),
    responses((status = 200, body = LevelsAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn levels(extract::State(app): State, admin: Admin, Ask(whose): Ask<Whose>) -> Result<Answer<LevelsAnswer>, Refusal> {
    let (merchant, now) = (whose.seen_by(&admin)?, (app.config.clock)());
    app.meters.published().iter().for_each(|(merchant, figures)| app.levels.add(merchant, figures));
    let mut windows = Vec::with_capacity(WINDOWS.len());
    for window in &WINDOWS {
        let figures = app.levels.read(&*app.store, merchant.as_ref(), window, now).await?;
        windows.push(WindowLevels { window: window.name, levels: Level::of(&figures).into(), figures });
    }
    Ok(Answer(LevelsAnswer { windows }))
}
