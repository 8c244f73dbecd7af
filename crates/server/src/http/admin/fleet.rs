//! The fleet: every device with how far it is behind.

use std::collections::HashMap;

use axum::{Json as Answer, extract};
use mstore_protocol::{BranchId, BranchKey, DeviceId, DeviceReport, Head, MerchantId, Problem, Seq, Timestamp};
use mstore_store::{DeviceRecord, DeviceStatus};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{App, State, caller::Admin, extract::Ask, problem::Refusal},
    Paging,
    devices::{OfBranch, records, state_of},
};

/// Devices and their lag.
#[derive(Serialize, ToSchema)]
pub(crate) struct Fleet {
    /// Devices connected over MQTT now, on any page; null for a merchant's token.
    connected: Option<usize>,
    items: Vec<FleetDevice>,
    /// Pass it as `after` to get the next page; null at the end.
    next: Option<String>,
}

/// One device of the fleet.
#[derive(Serialize, ToSchema)]
pub(crate) struct FleetDevice {
    #[schema(value_type = String)]
    device_id: DeviceId,
    #[schema(value_type = String)]
    merchant: MerchantId,
    #[schema(value_type = String)]
    branch: BranchId,
    name: String,
    /// `claimed`, `active` or `revoked`.
    #[schema(value_type = String)]
    status: DeviceStatus,
    /// What it is doing: as it reported last, or `claimed`, `revoked` or `lost`; null before its first report.
    state: Option<String>,
    /// The branch's newest commit.
    head_seq: Option<Seq>,
    /// What the device had when it reported.
    seq: Option<Seq>,
    /// Commits between the two; null before the first report, when the epochs differ, and for a device that is not active.
    lag_commits: Option<u64>,
    /// Digests that it found to differ since its app was started; it has mended what differed, or is about to.
    digest_mismatches: u64,
    /// Age of the report, seconds.
    reported_s_ago: Option<i64>,
    #[schema(value_type = Option<String>)]
    reported_at: Option<Timestamp>,
    /// Its last report.
    #[schema(value_type = Option<DeviceReport>)]
    report: Option<serde_json::Value>,
}

/// Every device with its report and its lag, a page.
#[utoipa::path(
    get,
    path = "/v1/admin/fleet",
    tag = "admin",
    operation_id = "fleet",
    params(OfBranch, Paging),
    responses((status = 200, body = Fleet), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn fleet(
    extract::State(app): State,
    admin: Admin,
    Ask(of): Ask<OfBranch>,
    Ask(paging): Ask<Paging>,
) -> Result<Answer<Fleet>, Refusal> {
    let now = (app.config.clock)();
    let (records, next) = records(&app, &admin, &of, &paging).await?;
    let heads = heads_of(&app, &records).await?;
    let items = records.into_iter().map(|record| with_lag(record, &heads, now)).collect();
    let connected = match admin.only() {
        Some(_) => None,
        None => Some(app.broker.stats().await.map_or(0, |stats| stats.connected)),
    };
    Ok(Answer(Fleet { connected, items, next }))
}

async fn heads_of(app: &App, records: &[DeviceRecord]) -> Result<HashMap<BranchKey, Head>, Refusal> {
    let mut heads = HashMap::new();
    for record in records {
        if !heads.contains_key(&record.key)
            && let Some(head) = app.store.head(&record.key).await?
        {
            heads.insert(record.key.clone(), head);
        }
    }
    Ok(heads)
}

fn with_lag(record: DeviceRecord, heads: &HashMap<BranchKey, Head>, now: Timestamp) -> FleetDevice {
    let head = heads.get(&record.key);
    let present = record.report.as_ref().filter(|_| record.status == DeviceStatus::Active);
    let report: Option<DeviceReport> = present.and_then(|report| serde_json::from_value(report.clone()).ok());
    let digest_mismatches = report.as_ref().and_then(|report| report.counters.get("digest_mismatches").copied()).unwrap_or(0);
    let cursor = report.and_then(|report| report.cursor);
    let lag = |head: &Head| cursor.filter(|cursor| cursor.epoch == head.epoch).map(|cursor| head.seq.saturating_sub(cursor.seq));
    FleetDevice {
        state: state_of(&record),
        head_seq: head.map(|head| head.seq),
        seq: cursor.map(|cursor| cursor.seq),
        lag_commits: head.and_then(lag),
        digest_mismatches,
        reported_s_ago: record.reported_at.map(|at| (now.as_ms() - at.as_ms()) / 1_000),
        device_id: record.device,
        merchant: record.key.merchant,
        branch: record.key.branch,
        name: record.name,
        status: record.status,
        reported_at: record.reported_at,
        report: record.report,
    }
}
