//! The device registry: claims, generations of tokens, branches a device was ever assigned to.

use async_trait::async_trait;
use mstore_protocol::{BranchId, BranchKey, Code, DeviceId, Timestamp};

use super::{Carrier, Size, Work, alarms, locks, writes};
use crate::{
    DeviceChange, DeviceRecord, DeviceStatus, NewClaim, Registry, StoreError, failpoint,
    sql::{Row, Sql, args, damaged},
};

#[async_trait]
impl<S: Carrier> Registry for S {
    async fn claim(&self, claim: NewClaim) -> Result<DeviceRecord, StoreError> {
        self.carry(Size::Small, move |work| make_claim(work, &claim), |record, _| record).await
    }

    async fn redeem(&self, code_hash: [u8; 32], nonce: &str, now: Timestamp) -> Result<DeviceRecord, StoreError> {
        let nonce = nonce.to_owned();
        self.carry(Size::Small, move |work| redeem(work, code_hash, &nonce, now), |record, _| record).await
    }

    async fn device(&self, device: &DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
        let device = device.clone();
        self.read(move |db| read(db, &device)).await
    }

    async fn devices(&self, key: Option<&BranchKey>, after: Option<&str>, limit: usize) -> Result<Vec<DeviceRecord>, StoreError> {
        let (key, after) = (key.cloned(), after.unwrap_or("").to_owned());
        self.read(move |db| list(db, key.as_ref(), &after, limit)).await
    }

    async fn change_device(&self, device: &DeviceId, change: DeviceChange, now: Timestamp) -> Result<DeviceRecord, StoreError> {
        let device = device.clone();
        self.carry(Size::Small, move |work| change_device(work, &device, &change, now), |record, _| record).await
    }
}

fn refuse<T>(detail: &str) -> Result<T, StoreError> {
    Err(StoreError::refused(Code::ClaimRefused, detail))
}

fn existing(db: &dyn Sql, device: &DeviceId) -> Result<DeviceRecord, StoreError> {
    read(db, device)?.ok_or_else(|| StoreError::refused(Code::NotFound, format!("no device {device}")))
}

fn make_claim(work: &mut Work<'_>, claim: &NewClaim) -> Result<DeviceRecord, StoreError> {
    locks::device(work, &claim.device)?;
    writes::check_branch(work, &claim.key)?;
    let (device, merchant, branch) = (claim.device.as_str(), claim.key.merchant.as_str(), claim.key.branch.as_str());
    match read(work.sql, &claim.device)? {
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
            work.sql.execute(sql, args![device, merchant, branch, claim.name, work.now.to_string()])?;
            assign(work, &claim.device, &claim.key.branch)?;
        }
    }
    // One open claim per device: a code that was passed on and forgotten ends with the next.
    work.sql.execute("DELETE FROM claim WHERE device_id = ?1 AND redeemed_at IS NULL", args![device])?;
    let sql = "INSERT INTO claim (code_hash, device_id, merchant_id, branch_id, name, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let expires_at = claim.expires_at.to_string();
    work.sql.execute(sql, args![claim.code_hash, device, merchant, branch, claim.name, expires_at])?;
    failpoint::point("claim_made");
    existing(work.sql, &claim.device)
}

fn assign(work: &Work<'_>, device: &DeviceId, branch: &BranchId) -> Result<(), StoreError> {
    let sql = "INSERT INTO device_branch (device_id, branch_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    work.sql.execute(sql, args![device.as_str(), branch.as_str()])?;
    Ok(())
}

fn redeem(work: &mut Work<'_>, code_hash: [u8; 32], nonce: &str, now: Timestamp) -> Result<DeviceRecord, StoreError> {
    let Some(device) = claimed_by(work, code_hash)? else { return refuse("no such claim code") };
    locks::device(work, &device)?;
    let sql = "SELECT branch_id, name, expires_at, nonce FROM claim WHERE code_hash = ?1";
    let found = work.sql.row(sql, args![code_hash], |row| Ok((row.branch(0)?, row.string(1)?, row.time(2)?, row.optional_string(3)?)))?;
    let Some((branch, name, expires_at, used_by)) = found else { return refuse("no such claim code") };
    if now > expires_at {
        return refuse("the claim code has expired");
    }
    if let Some(used_by) = used_by {
        let record = existing(work.sql, &device)?;
        // A lost answer may be asked for again by whoever asked first.
        return if used_by == nonce && record.status == DeviceStatus::Active { Ok(record) } else { refuse("the claim code was used") };
    }
    work.sql.execute("UPDATE claim SET nonce = ?2, redeemed_at = ?3 WHERE code_hash = ?1", args![code_hash, nonce, now.to_string()])?;
    let sql = "UPDATE device SET branch_id = ?2, name = coalesce(nullif(?3, ''), name), status = 'active', generation = generation + 1,
        previous_generation = NULL, revoked_at = NULL, report = NULL, reported_at = NULL WHERE device_id = ?1";
    work.sql.execute(sql, args![device.as_str(), branch.as_str(), &name])?;
    assign(work, &device, &branch)?;
    work.changed.insert(device.clone());
    failpoint::point("claim_redeemed");
    existing(work.sql, &device)
}

/// The device that a claim is for.
fn claimed_by(work: &Work<'_>, code_hash: [u8; 32]) -> Result<Option<DeviceId>, StoreError> {
    work.sql.row("SELECT device_id FROM claim WHERE code_hash = ?1", args![code_hash], |row| row.device(0))
}

fn change_device(work: &mut Work<'_>, device: &DeviceId, change: &DeviceChange, now: Timestamp) -> Result<DeviceRecord, StoreError> {
    locks::device(work, device)?;
    let record = existing(work.sql, device)?;
    let id = device.as_str();
    let is_revoked = record.status == DeviceStatus::Revoked;
    if !matches!(change, DeviceChange::Report(_)) {
        work.changed.insert(device.clone());
    }
    match change {
        DeviceChange::Rotate | DeviceChange::Move(_) if is_revoked => {
            return Err(StoreError::refused(Code::DeviceRevoked, format!("device {device} was revoked; make a new claim for it")));
        }
        // A second rotation before the first was used keeps the token that the device really has.
        DeviceChange::Rotate => {
            let sql = "UPDATE device SET previous_generation = coalesce(previous_generation, generation), generation = generation + 1 WHERE device_id = ?1";
            work.sql.execute(sql, args![id])?;
            failpoint::point("token_rotated");
        }
        DeviceChange::RetireOld => {
            work.sql.execute("UPDATE device SET previous_generation = NULL WHERE device_id = ?1", args![id])?;
            failpoint::point("token_retired");
        }
        DeviceChange::Revoke if is_revoked => {}
        DeviceChange::Revoke => {
            let sql = "UPDATE device SET status = 'revoked', revoked_at = ?2, generation = generation + 1, previous_generation = NULL WHERE device_id = ?1";
            work.sql.execute(sql, args![id, &now.to_string()])?;
            work.sql.execute("DELETE FROM claim WHERE device_id = ?1", args![id])?;
        }
        DeviceChange::Move(branch) => {
            let key = BranchKey { merchant: record.key.merchant.clone(), branch: branch.clone() };
            writes::check_branch(work, &key)?;
            work.sql.execute("UPDATE device SET branch_id = ?2 WHERE device_id = ?1", args![id, branch.as_str()])?;
            assign(work, device, branch)?;
            // A code for the branch that it left would take it back.
            work.sql.execute("DELETE FROM claim WHERE device_id = ?1 AND redeemed_at IS NULL", args![id])?;
        }
        DeviceChange::Report(report) => {
            let sql = "UPDATE device SET report = ?2, reported_at = ?3 WHERE device_id = ?1";
            work.sql.execute(sql, args![id, &report.to_string(), &now.to_string()])?;
            let is_refused = report["upload_refused"] == true;
            let detail =
                format!("every upload of {device} is refused on its way (a proxy, a limit); it keeps {} operations", report["queue_depth"]);
            alarms::follow(work.sql, now, "uploads_refused", &record.key, device, is_refused.then_some(&*detail))?;
            failpoint::point("report_kept");
        }
    }
    existing(work.sql, device)
}

macro_rules! device {
    ($condition:literal) => {
        concat!(
            "SELECT device_id, merchant_id, branch_id, name, status, generation, previous_generation, created_at, revoked_at, reported_at, report, ",
            "(SELECT string_agg(branch_id, ' ') FROM device_branch b WHERE b.device_id = d.device_id) FROM device d WHERE ",
            $condition
        )
    };
}

fn record(row: &Row<'_>) -> Result<DeviceRecord, StoreError> {
    let status = match row.text(4)? {
        "claimed" => DeviceStatus::Claimed,
        "active" => DeviceStatus::Active,
        _revoked => DeviceStatus::Revoked,
    };
    let branches = row.optional_text(11)?.unwrap_or_default().split_whitespace().map(BranchId::parse);
    let mut branches: Vec<BranchId> = branches.collect::<Result<_, _>>().map_err(|error| damaged("the branches of a device", error))?;
    branches.sort();
    let report = row.optional_text(10)?.map(serde_json::from_str).transpose().map_err(|error| damaged("a report", error))?;
    let generation = |number: u64| u32::try_from(number).map_err(|error| damaged("a generation", error));
    Ok(DeviceRecord {
        device: row.device(0)?,
        key: row.key(1)?,
        name: row.string(3)?,
        status,
        generation: generation(row.number(5)?)?,
        previous_generation: row.optional_number(6)?.map(generation).transpose()?,
        branches,
        created_at: row.time(7)?,
        revoked_at: row.optional_time(8)?,
        reported_at: row.optional_time(9)?,
        report,
    })
}

fn read(db: &dyn Sql, device: &DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
    db.row(device!("device_id = ?1"), args![device.as_str()], record)
}

fn list(db: &dyn Sql, key: Option<&BranchKey>, after: &str, limit: usize) -> Result<Vec<DeviceRecord>, StoreError> {
    match key {
        None => db.rows(device!("device_id > ?1 ORDER BY device_id LIMIT ?2"), args![after, limit], record),
        Some(BranchKey { merchant, branch }) => {
            let sql = device!("device_id > ?1 AND merchant_id = ?3 AND branch_id = ?4 ORDER BY device_id LIMIT ?2");
            db.rows(sql, args![after, limit, merchant.as_str(), branch.as_str()], record)
        }
    }
}
