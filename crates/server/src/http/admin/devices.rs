//! Devices: claim codes, rotation, revocation, moves to another branch.

use axum::{
    Json as Answer, extract,
    http::{HeaderMap, header},
};
use mstore_protocol::{BranchId, BranchKey, Code, DeviceId, MerchantId, Problem, Rotation, Timestamp, limits::CLAIM_LIFETIME_S};
use mstore_store::{DeviceChange, DeviceRecord, DeviceStatus, JournalSeen, NewClaim};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        App, State,
        body::Json,
        caller::Admin,
        enrol::{http_url, mqtt_url, ws_url},
        extract::{Ask, Names},
        problem::Refusal,
    },
    Paging,
};
use crate::ClaimCode;

/// A device for a branch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimBody {
    /// Its id; one is made up when it is left out.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    device_id: Option<DeviceId>,
    #[schema(value_type = String)]
    merchant: MerchantId,
    #[schema(value_type = String)]
    branch: BranchId,
    /// For people.
    #[serde(default)]
    name: String,
}

/// What to type into the till.
#[derive(Serialize, ToSchema)]
pub(crate) struct Claim {
    #[schema(value_type = String)]
    device_id: DeviceId,
    /// Works once, until `expires_at`.
    code: String,
    #[schema(value_type = String)]
    expires_at: Timestamp,
    /// Where the till redeems it.
    enrol_url: String,
    mqtt_url: String,
    ws_url: String,
}

/// A device as operators see it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceView {
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
    /// Counts its tokens.
    generation: u32,
    /// A newer token waits for its first use.
    rotating: bool,
    /// Branches it was ever assigned to: it may upload for these.
    #[schema(value_type = Vec<String>)]
    branches: Vec<BranchId>,
    #[schema(value_type = String)]
    created_at: Timestamp,
    #[schema(value_type = Option<String>)]
    revoked_at: Option<Timestamp>,
    /// When somebody said that it is lost.
    #[schema(value_type = Option<String>)]
    lost_at: Option<Timestamp>,
    /// When its newest token was made.
    #[schema(value_type = Option<String>)]
    token_at: Option<Timestamp>,
    #[schema(value_type = Option<String>)]
    reported_at: Option<Timestamp>,
    /// Its last report.
    #[schema(value_type = Option<Object>)]
    report: Option<serde_json::Value>,
}

impl From<DeviceRecord> for DeviceView {
    fn from(record: DeviceRecord) -> Self {
        Self {
            state: state_of(&record),
            device_id: record.device,
            merchant: record.key.merchant,
            branch: record.key.branch,
            name: record.name,
            status: record.status,
            generation: record.generation,
            rotating: record.previous_generation.is_some(),
            branches: record.branches,
            created_at: record.created_at,
            revoked_at: record.revoked_at,
            lost_at: record.lost_at,
            token_at: record.token_at,
            reported_at: record.reported_at,
            report: record.report,
        }
    }
}

/// What a device is doing; what a device that is shut out said before is its past.
pub(super) fn state_of(record: &DeviceRecord) -> Option<String> {
    match record.status {
        DeviceStatus::Claimed => Some("claimed".to_owned()),
        DeviceStatus::Revoked if record.lost_at.is_some() => Some("lost".to_owned()),
        DeviceStatus::Revoked => Some("revoked".to_owned()),
        DeviceStatus::Active => record.report.as_ref()?["state"].as_str().map(str::to_owned),
    }
}

/// Devices, a page.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DevicePage {
    items: Vec<DeviceView>,
    /// Pass it as `after` to get the next page; null at the end.
    next: Option<String>,
}

/// Which devices.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfBranch {
    /// Only of this merchant's branch; both or neither.
    merchant: Option<String>,
    /// Only of this branch.
    branch: Option<String>,
}

impl OfBranch {
    pub(super) fn key(&self) -> Result<Option<BranchKey>, Refusal> {
        match (&self.merchant, &self.branch) {
            (None, None) => Ok(None),
            (Some(merchant), Some(branch)) => {
                BranchKey::parse(merchant, branch).map(Some).map_err(|error| Refusal::malformed(format!("the query: {error}")))
            }
            _ => Err(Refusal::malformed("the query: merchant and branch go together")),
        }
    }
}

/// One page of records, and where the next one starts.
pub(super) async fn records(
    app: &App,
    admin: &Admin,
    of: &OfBranch,
    paging: &Paging,
) -> Result<(Vec<DeviceRecord>, Option<String>), Refusal> {
    let (key, limit) = (of.key()?, paging.limit()?);
    let records = match (&key, admin.only()) {
        (None, Some(merchant)) => app.store.devices_of(merchant, paging.after.as_deref(), limit).await?,
        (Some(_), _) | (None, None) => {
            key.iter().try_for_each(|key| admin.check_merchant(key.merchant.as_str()))?;
            app.store.devices(key.as_ref(), paging.after.as_deref(), limit).await?
        }
    };
    let next = if records.len() == limit { records.last().map(|record| record.device.to_string()) } else { None };
    Ok((records, next))
}

/// Devices by id, of a branch or all, a page.
#[utoipa::path(
    get,
    path = "/v1/admin/devices",
    tag = "admin",
    operation_id = "list_devices",
    params(OfBranch, Paging),
    responses((status = 200, body = DevicePage), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn list(
    extract::State(app): State,
    admin: Admin,
    Ask(of): Ask<OfBranch>,
    Ask(paging): Ask<Paging>,
) -> Result<Answer<DevicePage>, Refusal> {
    let (records, next) = records(&app, &admin, &of, &paging).await?;
    Ok(Answer(DevicePage { items: records.into_iter().map(DeviceView::from).collect(), next }))
}

/// Make a claim code for a new device, or for one that lost its token.
#[utoipa::path(
    post,
    path = "/v1/admin/devices",
    tag = "admin",
    operation_id = "claim_device",
    request_body = ClaimBody,
    responses((status = 200, body = Claim), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn claim(
    extract::State(app): State,
    admin: Admin,
    headers: HeaderMap,
    Json(body): Json<ClaimBody>,
) -> Result<Answer<Claim>, Refusal> {
    admin.check_merchant(body.merchant.as_str())?;
    let code = ClaimCode::generate();
    let lifetime_ms = i64::try_from(CLAIM_LIFETIME_S * 1_000).expect("15 minutes fit");
    let expires_at = (app.config.clock)().plus_ms(lifetime_ms);
    let device = body.device_id.map_or_else(new_device_id, Ok)?;
    let key = BranchKey { merchant: body.merchant, branch: body.branch };
    let claim = NewClaim { code_hash: code.hash(), device, key, name: body.name, expires_at, by: admin.by() };
    let record = app.directory.claim(claim).await?;
    tracing::info!(branch = %record.key, device = record.device.as_str(), %expires_at, "device claim made");
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    Ok(Answer(Claim {
        device_id: record.device,
        code: code.reveal(),
        expires_at,
        enrol_url: format!("{}/v1/devices/enrol", http_url(&app, host)),
        mqtt_url: mqtt_url(&app, host),
        ws_url: ws_url(&app, host),
    }))
}

fn new_device_id() -> Result<DeviceId, Refusal> {
    DeviceId::parse(&format!("till-{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff))
        .map_err(|error| Refusal::internal("a device id could not be made", &error))
}

/// One device.
#[utoipa::path(
    get,
    path = "/v1/admin/devices/{device}",
    tag = "admin",
    operation_id = "read_device",
    params(("device" = String, Path)),
    responses((status = 200, body = DeviceView), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn read(extract::State(app): State, _: Admin, Names(device): Names<DeviceId>) -> Result<Answer<DeviceView>, Refusal> {
    Ok(Answer(existing(&app, &device).await?.into()))
}

async fn existing(app: &App, device: &DeviceId) -> Result<DeviceRecord, Refusal> {
    app.store.device(device).await?.ok_or_else(|| Refusal::not_found(format!("there is no device {device}")))
}

/// Make the device's next token; the old one works until the new one is first used.
#[utoipa::path(
    post,
    path = "/v1/admin/devices/{device}/rotate",
    tag = "admin",
    operation_id = "rotate_device",
    params(("device" = String, Path)),
    responses((status = 200, body = Rotation), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn rotate(extract::State(app): State, admin: Admin, Names(device): Names<DeviceId>) -> Result<Answer<Rotation>, Refusal> {
    let record = existing(&app, &device).await?;
    if record.status != DeviceStatus::Active {
        return Err(Refusal::new(Code::Conflict, format!("device {device} is not active: it has no token to rotate")));
    }
    // A rotation under way is not started again: the token before it would end unseen.
    let rotated = match record.previous_generation {
        Some(_) => record,
        None => app.directory.change(&device, DeviceChange::Rotate, &admin.by()).await?,
    };
    tracing::info!(branch = %rotated.key, device = device.as_str(), generation = rotated.generation, "device token rotated");
    Ok(Answer(Rotation { token: app.directory.token(&rotated) }))
}

/// End the device's credentials for ever, close its connection, purge its session.
#[utoipa::path(
    post,
    path = "/v1/admin/devices/{device}/revoke",
    tag = "admin",
    operation_id = "revoke_device",
    params(("device" = String, Path)),
    responses((status = 200, body = DeviceView), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn revoke(
    extract::State(app): State,
    admin: Admin,
    Names(device): Names<DeviceId>,
) -> Result<Answer<DeviceView>, Refusal> {
    existing(&app, &device).await?;
    let revoked = app.directory.change(&device, DeviceChange::Revoke, &admin.by()).await?;
    let kicked = app.broker.kick(&device).await;
    tracing::warn!(branch = %revoked.key, device = device.as_str(), ?kicked, "device revoked");
    Ok(Answer(revoked.into()))
}

/// What is known of a device that is gone.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LostDevice {
    #[serde(flatten)]
    device: DeviceView,
    /// Operations that it had not sent when it reported last; null if it never did. What it did afterwards nobody knows.
    unsent: Option<u64>,
    /// Age of the oldest of them at that time, seconds.
    oldest_unsent_s: Option<u64>,
    /// How far each of its journals was handed in, the newest first: a receipt with a higher number is not here.
    journals: Vec<JournalEnd>,
    /// What to do when it turns up again.
    next: &'static str,
}

/// How far a journal was handed in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JournalEnd {
    journal_id: String,
    /// The highest number seen.
    device_seq: u64,
    /// When the last operation came.
    #[schema(value_type = String)]
    at: Timestamp,
}

const WHEN_FOUND: &str = "when it turns up, do not enrol it yet: write its journal into a file on the till (mstore-sync device export --db till.db --out \
    journal.json) and hand that in (mstore-sync device hand-in journal.json); it needs no credentials for this and reads nothing. Then wipe it, or enrol it anew";

/// Shut out a device that nobody can find, and say what it held. The same as `revoke`, and on record as lost.
#[utoipa::path(
    post,
    path = "/v1/admin/devices/{device}/lost",
    tag = "admin",
    operation_id = "lose_device",
    params(("device" = String, Path)),
    responses((status = 200, body = LostDevice), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn lose(extract::State(app): State, admin: Admin, Names(device): Names<DeviceId>) -> Result<Answer<LostDevice>, Refusal> {
    existing(&app, &device).await?;
    let lost = app.directory.change(&device, DeviceChange::Lose, &admin.by()).await?;
    let kicked = app.broker.kick(&device).await;
    tracing::warn!(branch = %lost.key, device = device.as_str(), ?kicked, "device lost");
    let journals = app.store.journals_of(&device).await?;
    let journals =
        journals.into_iter().map(|JournalSeen { journal_id, device_seq, at }| JournalEnd { journal_id, device_seq, at }).collect();
    let said = |name: &str| lost.report.as_ref()?[name].as_u64();
    let (unsent, oldest_unsent_s) = (said("queue_depth"), said("oldest_pending_s"));
    Ok(Answer(LostDevice { device: lost.into(), unsent, oldest_unsent_s, journals, next: WHEN_FOUND }))
}

/// Where a device goes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MoveTo {
    /// May be left out: a device stays with its merchant.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    merchant: Option<MerchantId>,
    /// Another branch of the same merchant.
    #[schema(value_type = String)]
    branch: BranchId,
}

/// Move the device to another branch: it gets nothing of the old one any more, and may still upload for it.
#[utoipa::path(
    post,
    path = "/v1/admin/devices/{device}/move",
    tag = "admin",
    operation_id = "move_device",
    params(("device" = String, Path)),
    request_body = MoveTo,
    responses((status = 200, body = DeviceView), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn move_device(
    extract::State(app): State,
    admin: Admin,
    Names(device): Names<DeviceId>,
    Json(to): Json<MoveTo>,
) -> Result<Answer<DeviceView>, Refusal> {
    let record = existing(&app, &device).await?;
    if let Some(merchant) = to.merchant.filter(|merchant| *merchant != record.key.merchant) {
        let detail = format!(
            "device {device} belongs to merchant {} and cannot move to {merchant}; revoke it and add another one there",
            record.key.merchant
        );
        return Err(Refusal::new(Code::Conflict, detail));
    }
    let moved = app.directory.change(&device, DeviceChange::Move(to.branch), &admin.by()).await?;
    app.broker.kick(&device).await;
    tracing::info!(branch = %moved.key, device = device.as_str(), "device moved");
    Ok(Answer(moved.into()))
}
