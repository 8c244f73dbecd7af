//! The fleet: every device with how far it is behind.

use std::collections::HashMap;

use axum::{Json as Answer, extract};
use mstore_protocol::{BranchId, BranchKey, DeviceId, DeviceReport, DeviceState, Head, MerchantId, Problem, Seq, Timestamp};
use mstore_store::{DeviceRecord, DeviceStatus};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{App, State, caller::Admin, extract::Ask, problem::Refusal},
    Paging,
    devices::{OfBranch, records, state_of},
};
use crate::fleet::{Health, Seen};

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
    /// How it is: its report, and the time since.
    health: Option<Health>,
    /// How it hears of changes: `mqtt` while live, `http` while polling.
    transport: Option<&'static str>,
    /// Whether its digests were the server's, if it reported at the head.
    digests_equal: Option<bool>,
    /// How far its clock was ahead of ours when it reported, milliseconds; the report's way included.
    clock_skew_ms: Option<i64>,
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
    let health = report.as_ref().zip(record.reported_at).map(|(report, at)| Health::of(Some(Seen { report, at, branch_had: None }), now));
    let clock_skew_ms = report.as_ref().zip(record.reported_at).map(|(report, at)| report.device_time.as_ms() - at.as_ms());
    let transport = report.as_ref().and_then(transport);
    let at_head = report.as_ref().zip(head).filter(|(report, head)| report.cursor == Some(head.cursor()) && !report.digests.is_empty());
    let digests_equal =
        at_head.map(|(report, head)| report.digests.iter().all(|(collection, digest)| head.digests.get(collection) == Some(digest)));
    let cursor = report.and_then(|report| report.cursor);
    let lag = |head: &Head| cursor.filter(|cursor| cursor.epoch == head.epoch).map(|cursor| head.seq.saturating_sub(cursor.seq));
    FleetDevice {
        state: state_of(&record),
        head_seq: head.map(|head| head.seq),
        seq: cursor.map(|cursor| cursor.seq),
        lag_commits: head.and_then(lag),
        health,
        transport,
        digests_equal,
        clock_skew_ms,
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

fn transport(report: &DeviceReport) -> Option<&'static str> {
    match report.state {
        DeviceState::Live => Some("mqtt"),
        DeviceState::Polling => Some("http"),
        DeviceState::Starting | DeviceState::CatchingUp | DeviceState::Offline | DeviceState::NeedsSnapshot | DeviceState::Blocked(_) => {
            None
        }
    }
}
