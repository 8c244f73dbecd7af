//! The device registry: claims, generations of tokens, branches a device was ever assigned to.

use async_trait::async_trait;
use mstore_protocol::{BranchId, BranchKey, Code, DeviceId, MerchantId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params, types::Type};

use super::{Size, SqliteStore, alarms, job::Work, mirror, writes};
use crate::{DeviceChange, DeviceRecord, DeviceStatus, NewClaim, Registry, StoreError, failpoint};

#[async_trait]
impl Registry for SqliteStore {
    async fn claim(&self, claim: NewClaim) -> Result<DeviceRecord, StoreError> {
        self.submit(Size::Small, move |work| make_claim(work, &claim), |record, _| record).await
    }

    async fn redeem(&self, code_hash: [u8; 32], nonce: &str, now: Timestamp) -> Result<DeviceRecord, StoreError> {
        let nonce = nonce.to_owned();
        self.submit(Size::Small, move |work| redeem(work, code_hash, &nonce, now), |record, _| record).await
    }

    async fn device(&self, device: &DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
        let device = device.clone();
        self.readers.read(move |conn| read(conn, &device)).await
    }

    async fn devices(&self, key: Option<&BranchKey>, after: Option<&str>, limit: usize) -> Result<Vec<DeviceRecord>, StoreError> {
        let (key, after) = (key.cloned(), after.unwrap_or("").to_owned());
        self.readers.read(move |conn| list(conn, key.as_ref(), &after, limit)).await
    }

    async fn change_device(&self, device: &DeviceId, change: DeviceChange, now: Timestamp) -> Result<DeviceRecord, StoreError> {
        let device = device.clone();
        self.submit(Size::Small, move |work| change_device(work, &device, &change, now), |record, _| record).await
    }
}

fn refuse<T>(detail: &str) -> Result<T, StoreError> {
    Err(StoreError::refused(Code::ClaimRefused, detail))
}

fn existing(conn: &Connection, device: &DeviceId) -> Result<DeviceRecord, StoreError> {
    read(conn, device)?.ok_or_else(|| StoreError::refused(Code::NotFound, format!("no device {device}")))
}

fn make_claim(work: &mut Work<'_>, claim: &NewClaim) -> Result<DeviceRecord, StoreError> {
    writes::check_branch(work, &claim.key)?;
    let (device, merchant, branch) = (claim.device.as_str(), claim.key.merchant.as_str(), claim.key.branch.as_str());
    match read(work.conn, &claim.device)? {
        Some(known) if known.key.merchant != claim.key.merchant => {
            return Err(StoreError::refused(
                Code::AlreadyExists,
                format!("device {device} belongs to another merchant; choose another id"),
            ));
        }
        // The claim would take it from where it works, unseen.
        Some(known) if known.status == DeviceStatus::Active && known.key != claim.key => {
            return Err(StoreError::refused(
                Code::DeviceActive,
                format!(
                    "device {device} is active at {}; to take it to {}, move it first, then make a claim code for it",
                    known.key, claim.key
                ),
            ));
        }
        Some(_) => {}
        None => {
            let sql = "INSERT INTO device (device_id, merchant_id, branch_id, name, status, generation, created_at) VALUES (?1, ?2, ?3, ?4, 'claimed', 0, ?5)";
            work.conn.prepare_cached(sql)?.execute(params![device, merchant, branch, claim.name, work.now.to_string()])?;
            assign(work, &claim.device, &claim.key.branch)?;
        }
    }
    // One open claim per device: a code that was passed on and forgotten ends with the next.
    work.conn.prepare_cached("DELETE FROM claim WHERE device_id = ?1 AND redeemed_at IS NULL")?.execute([device])?;
    let sql = "INSERT INTO claim (code_hash, device_id, merchant_id, branch_id, name, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let expires_at = claim.expires_at.to_string();
    work.conn.prepare_cached(sql)?.execute(params![&claim.code_hash[..], device, merchant, branch, claim.name, expires_at])?;
    failpoint::point("claim_made");
    existing(work.conn, &claim.device)
}

fn assign(work: &Work<'_>, device: &DeviceId, branch: &BranchId) -> Result<(), StoreError> {
    let sql = "INSERT INTO device_branch (device_id, branch_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    work.conn.prepare_cached(sql)?.execute([device.as_str(), branch.as_str()])?;
    Ok(())
}

fn redeem(work: &mut Work<'_>, code_hash: [u8; 32], nonce: &str, now: Timestamp) -> Result<DeviceRecord, StoreError> {
    let sql = "SELECT device_id, branch_id, name, expires_at, nonce FROM claim WHERE code_hash = ?1";
    let mut statement = work.conn.prepare_cached(sql)?;
    let found = statement.query_row([&code_hash[..]], |row| {
        let text = |i: usize| row.get::<_, String>(i);
        Ok((text(0)?, text(1)?, text(2)?, mirror::time(row, 3)?, row.get::<_, Option<String>>(4)?))
    });
    let Some((device, branch, name, expires_at, used_by)) = found.optional()? else { return refuse("no such claim code") };
    let device = DeviceId::parse(&device).map_err(|error| super::error::damaged("a claim", error))?;
    if now > expires_at {
        return refuse("the claim code has expired");
    }
    if let Some(used_by) = used_by {
        let record = existing(work.conn, &device)?;
        // A lost answer may be asked for again by whoever asked first.
        return if used_by == nonce && record.status == DeviceStatus::Active { Ok(record) } else { refuse("the claim code was used") };
    }
    let branch = BranchId::parse(&branch).map_err(|error| super::error::damaged("a claim", error))?;
    work.conn.prepare_cached("UPDATE claim SET nonce = ?2, redeemed_at = ?3 WHERE code_hash = ?1")?.execute(params![
        &code_hash[..],
        nonce,
        now.to_string()
    ])?;
    let sql = "UPDATE device SET branch_id = ?2, name = coalesce(nullif(?3, ''), name), status = 'active', generation = generation + 1,
        previous_generation = NULL, revoked_at = NULL, report = NULL, reported_at = NULL WHERE device_id = ?1";
    work.conn.prepare_cached(sql)?.execute([device.as_str(), branch.as_str(), &name])?;
    assign(work, &device, &branch)?;
    failpoint::point("claim_redeemed");
    existing(work.conn, &device)
}

fn change_device(work: &mut Work<'_>, device: &DeviceId, change: &DeviceChange, now: Timestamp) -> Result<DeviceRecord, StoreError> {
    let record = existing(work.conn, device)?;
    let id = device.as_str();
    let is_revoked = record.status == DeviceStatus::Revoked;
    match change {
        DeviceChange::Rotate | DeviceChange::Move(_) if is_revoked => {
            return Err(StoreError::refused(Code::DeviceRevoked, format!("device {device} was revoked; make a new claim for it")));
        }
        // A second rotation before the first was used keeps the token that the device really has.
        DeviceChange::Rotate => {
            let sql = "UPDATE device SET previous_generation = coalesce(previous_generation, generation), generation = generation + 1 WHERE device_id = ?1";
            work.conn.prepare_cached(sql)?.execute([id])?;
            failpoint::point("token_rotated");
        }
        DeviceChange::RetireOld => {
            work.conn.prepare_cached("UPDATE device SET previous_generation = NULL WHERE device_id = ?1")?.execute([id])?;
            failpoint::point("token_retired");
        }
        DeviceChange::Revoke if is_revoked => {}
        DeviceChange::Revoke => {
            let sql = "UPDATE device SET status = 'revoked', revoked_at = ?2, generation = generation + 1, previous_generation = NULL WHERE device_id = ?1";
            work.conn.prepare_cached(sql)?.execute([id, &now.to_string()])?;
            work.conn.prepare_cached("DELETE FROM claim WHERE device_id = ?1")?.execute([id])?;
        }
        DeviceChange::Move(branch) => {
            let key = BranchKey { merchant: record.key.merchant.clone(), branch: branch.clone() };
            writes::check_branch(work, &key)?;
            work.conn.prepare_cached("UPDATE device SET branch_id = ?2 WHERE device_id = ?1")?.execute([id, branch.as_str()])?;
            assign(work, device, branch)?;
            // A code for the branch that it left would take it back.
            work.conn.prepare_cached("DELETE FROM claim WHERE device_id = ?1 AND redeemed_at IS NULL")?.execute([id])?;
        }
        DeviceChange::Report(report) => {
            let sql = "UPDATE device SET report = ?2, reported_at = ?3 WHERE device_id = ?1";
            work.conn.prepare_cached(sql)?.execute([id, &report.to_string(), &now.to_string()])?;
            let is_refused = report["upload_refused"] == true;
            let detail =
                format!("every upload of {device} is refused on its way (a proxy, a limit); it keeps {} operations", report["queue_depth"]);
            alarms::follow(work.conn, now, "uploads_refused", &record.key, device, is_refused.then_some(&*detail))?;
            failpoint::point("report_kept");
        }
    }
    existing(work.conn, device)
}

const DEVICE: &str =
    "SELECT device_id, merchant_id, branch_id, name, status, generation, previous_generation, created_at, revoked_at, reported_at,
    report, (SELECT group_concat(branch_id, ' ') FROM device_branch b WHERE b.device_id = d.device_id) FROM device d";

fn record(row: &rusqlite::Row<'_>) -> rusqlite::Result<DeviceRecord> {
    let bad = |i: usize, error: Box<dyn std::error::Error + Send + Sync>| rusqlite::Error::FromSqlConversionFailure(i, Type::Text, error);
    let text = |i: usize| row.get::<_, String>(i);
    let optional_time = |i: usize| {
        row.get_ref(i).and_then(|value| if value == rusqlite::types::ValueRef::Null { Ok(None) } else { mirror::time(row, i).map(Some) })
    };
    let status = match text(4)?.as_str() {
        "claimed" => DeviceStatus::Claimed,
        "active" => DeviceStatus::Active,
        _revoked => DeviceStatus::Revoked,
    };
    let branches = row.get::<_, Option<String>>(11)?.unwrap_or_default();
    let mut branches: Vec<BranchId> =
        branches.split_whitespace().map(BranchId::parse).collect::<Result<_, _>>().map_err(|error| bad(11, error.into()))?;
    branches.sort();
    let report =
        row.get::<_, Option<String>>(10)?.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| bad(10, error.into()))?;
    Ok(DeviceRecord {
        device: DeviceId::parse(&text(0)?).map_err(|error| bad(0, error.into()))?,
        key: BranchKey {
            merchant: MerchantId::parse(&text(1)?).map_err(|error| bad(1, error.into()))?,
            branch: BranchId::parse(&text(2)?).map_err(|error| bad(2, error.into()))?,
        },
        name: text(3)?,
        status,
        generation: row.get(5)?,
        previous_generation: row.get(6)?,
        branches,
        created_at: mirror::time(row, 7)?,
        revoked_at: optional_time(8)?,
        reported_at: optional_time(9)?,
        report,
    })
}

fn read(conn: &Connection, device: &DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
    Ok(conn.prepare_cached(&format!("{DEVICE} WHERE device_id = ?1"))?.query_row([device.as_str()], record).optional()?)
}

fn list(conn: &Connection, key: Option<&BranchKey>, after: &str, limit: usize) -> Result<Vec<DeviceRecord>, StoreError> {
    let sql =
        format!("{DEVICE} WHERE device_id > ?1 AND (?2 IS NULL OR (merchant_id = ?2 AND branch_id = ?3)) ORDER BY device_id LIMIT ?4");
    let mut statement = conn.prepare_cached(&sql)?;
    let (merchant, branch) = (key.map(|key| key.merchant.as_str()), key.map(|key| key.branch.as_str()));
    let records = statement.query_map(params![after, merchant, branch, limit], record)?;
    Ok(records.collect::<Result<_, _>>()?)
}
