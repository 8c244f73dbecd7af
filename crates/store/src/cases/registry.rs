//! The device registry: claims, generations of tokens, branches a device was ever assigned to.

use std::net::IpAddr;

use async_trait::async_trait;
use mstore_protocol::{BranchId, BranchKey, Code, DeviceId, MerchantId, Timestamp};

use super::{Carrier, Size, Work, alarms, audit, locks, writes};
use crate::{
    Act, By, DeviceChange, DeviceRecord, DeviceStatus, JournalSeen, NewClaim, Registry, StoreError, failpoint,
    sql::{Row, Sql, args, damaged},
};

macro_rules! device {
    ($condition:literal) => {
        concat!(
            "SELECT device_id, merchant_id, branch_id, name, status, generation, previous_generation, created_at, revoked_at, reported_at, report, ",
            "token_at, lost_at, (SELECT string_agg(branch_id, ' ') FROM device_branch b WHERE b.device_id = d.device_id) FROM device d WHERE ",
            $condition
        )
    };
}

#[async_trait]
impl<S: Carrier> Registry for S {
    async fn claim(&self, claim: NewClaim) -> Result<DeviceRecord, StoreError> {
        self.carry(Size::Small, move |work| make_claim(work, &claim), |record, _| record).await
    }

    async fn redeem(&self, code_hash: [u8; 32], nonce: &str, from: Option<IpAddr>, now: Timestamp) -> Result<DeviceRecord, StoreError> {
        let nonce = nonce.to_owned();
        self.carry(Size::Small, move |work| redeem(work, code_hash, &nonce, from, now), |record, _| record).await
    }

    async fn device(&self, device: &DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
        let device = device.clone();
        self.read(move |db| read(db, &device)).await
    }

    async fn devices(&self, key: Option<&BranchKey>, after: Option<&str>, limit: usize) -> Result<Vec<DeviceRecord>, StoreError> {
        let (key, after) = (key.cloned(), after.unwrap_or("").to_owned());
        self.read(move |db| list(db, key.as_ref(), &after, limit)).await
    }

    async fn devices_of(&self, merchant: &MerchantId, after: Option<&str>, limit: usize) -> Result<Vec<DeviceRecord>, StoreError> {
        let (merchant, after) = (merchant.clone(), after.unwrap_or("").to_owned());
        let sql = device!("device_id > ?1 AND merchant_id = ?3 ORDER BY device_id LIMIT ?2");
        self.read(move |db| db.rows(sql, args![after, limit, merchant.as_str()], record)).await
    }

    async fn change_device(&self, device: &DeviceId, change: DeviceChange, by: &By, now: Timestamp) -> Result<DeviceRecord, StoreError> {
        let (device, by) = (device.clone(), by.clone());
        self.carry(Size::Small, move |work| change_device(work, &device, &change, &by, now), |record, _| record).await
    }

    async fn journals_of(&self, device: &DeviceId) -> Result<Vec<JournalSeen>, StoreError> {
        let device = device.clone();
        let sql = "SELECT journal_id, max(device_seq), max(recorded_at) FROM operation WHERE device_id = ?1 GROUP BY journal_id ORDER BY 3 DESC LIMIT 20";
        let read = |row: &Row<'_>| Ok(JournalSeen { journal_id: row.string(0)?, device_seq: row.number(1)?, at: row.time(2)? });
        self.read(move |db| db.rows(sql, args![device.as_str()], read)).await
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
    let detail = format!("a claim code, good until {expires_at}");
    audit::write(work, &Act { detail, ..audit::about("device.claimed", &claim.key, &claim.device) }, &claim.by)?;
    failpoint::point("claim_made");
    existing(work.sql, &claim.device)
}

fn assign(work: &Work<'_>, device: &DeviceId, branch: &BranchId) -> Result<(), StoreError> {
    let sql = "INSERT INTO device_branch (device_id, branch_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    work.sql.execute(sql, args![device.as_str(), branch.as_str()])?;
    Ok(())
}

fn redeem(work: &mut Work<'_>, code_hash: [u8; 32], nonce: &str, from: Option<IpAddr>, now: Timestamp) -> Result<DeviceRecord, StoreError> {
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
        previous_generation = NULL, token_at = ?4, revoked_at = NULL, lost_at = NULL, report = NULL, reported_at = NULL WHERE device_id = ?1";
    work.sql.execute(sql, args![device.as_str(), branch.as_str(), &name, now.to_string()])?;
    assign(work, &device, &branch)?;
    let record = existing(work.sql, &device)?;
    audit::write(work, &audit::about("device.enrolled", &record.key, &device), &By::device(&device, from))?;
    work.changed.insert(device.clone());
    failpoint::point("claim_redeemed");
    Ok(record)
}

/// The device that a claim is for.
fn claimed_by(work: &Work<'_>, code_hash: [u8; 32]) -> Result<Option<DeviceId>, StoreError> {
    work.sql.row("SELECT device_id FROM claim WHERE code_hash = ?1", args![code_hash], |row| row.device(0))
}

fn change_device(
    work: &mut Work<'_>,
    device: &DeviceId,
    change: &DeviceChange,
    by: &By,
    now: Timestamp,
) -> Result<DeviceRecord, StoreError> {
    locks::device(work, device)?;
    let record = existing(work.sql, device)?;
    let id = device.as_str();
    if !matches!(change, DeviceChange::Report(_)) {
        work.changed.insert(device.clone());
    }
    match change {
        DeviceChange::Rotate | DeviceChange::Move(_) if record.status == DeviceStatus::Revoked => {
            return Err(StoreError::refused(Code::DeviceRevoked, format!("device {device} was revoked; make a new claim for it")));
        }
        // A second rotation before the first was used keeps the token that the device really has.
        DeviceChange::Rotate => {
            let sql = "UPDATE device SET previous_generation = coalesce(previous_generation, generation), generation = generation + 1, token_at = ?2 WHERE device_id = ?1";
            work.sql.execute(sql, args![id, now.to_string()])?;
            audit::write(work, &audit::about("device.rotated", &record.key, device), by)?;
            failpoint::point("token_rotated");
        }
        DeviceChange::RetireOld => {
            work.sql.execute("UPDATE device SET previous_generation = NULL WHERE device_id = ?1", args![id])?;
            failpoint::point("token_retired");
        }
        DeviceChange::Revoke => shut_out(work, &record, false, by, now)?,
        DeviceChange::Lose => shut_out(work, &record, true, by, now)?,
        DeviceChange::Move(branch) => move_to(work, &record, branch, by)?,
        DeviceChange::Report(report) => keep_report(work, &record, report, now)?,
    }
    existing(work.sql, device)
}

/// Ends a device's credentials; one that is out already may still turn out to be lost.
fn shut_out(work: &mut Work<'_>, record: &DeviceRecord, is_lost: bool, by: &By, now: Timestamp) -> Result<(), StoreError> {
    let (id, at) = (record.device.as_str(), now.to_string());
    let is_news = record.status != DeviceStatus::Revoked || (is_lost && record.lost_at.is_none());
    if !is_news {
        return Ok(());
    }
    if record.status != DeviceStatus::Revoked {
        let sql = "UPDATE device SET status = 'revoked', revoked_at = ?2, generation = generation + 1, previous_generation = NULL WHERE device_id = ?1";
        work.sql.execute(sql, args![id, &at])?;
    }
    if is_lost {
        work.sql.execute("UPDATE device SET lost_at = ?2 WHERE device_id = ?1", args![id, &at])?;
    }
    work.sql.execute("DELETE FROM claim WHERE device_id = ?1", args![id])?;
    let action = if is_lost { "device.lost" } else { "device.revoked" };
    audit::write(work, &audit::about(action, &record.key, &record.device), by)
}

fn move_to(work: &mut Work<'_>, record: &DeviceRecord, branch: &BranchId, by: &By) -> Result<(), StoreError> {
    let id = record.device.as_str();
    let key = BranchKey { merchant: record.key.merchant.clone(), branch: branch.clone() };
    writes::check_branch(work, &key)?;
    work.sql.execute("UPDATE device SET branch_id = ?2 WHERE device_id = ?1", args![id, branch.as_str()])?;
    assign(work, &record.device, branch)?;
    // A code for the branch that it left would take it back.
    work.sql.execute("DELETE FROM claim WHERE device_id = ?1 AND redeemed_at IS NULL", args![id])?;
    let detail = format!("from {} to {branch}", record.key.branch);
    audit::write(work, &Act { detail, ..audit::about("device.moved", &key, &record.device) }, by)
}

fn keep_report(work: &mut Work<'_>, record: &DeviceRecord, report: &serde_json::Value, now: Timestamp) -> Result<(), StoreError> {
    let device = &record.device;
    let sql = "UPDATE device SET report = ?2, reported_at = ?3 WHERE device_id = ?1";
    work.sql.execute(sql, args![device.as_str(), &report.to_string(), &now.to_string()])?;
    let is_refused = report["upload_refused"] == true;
    let detail =
        format!("every upload of {device} is refused on its way (a proxy, a limit); it keeps {} operations", report["queue_depth"]);
    alarms::follow(work.sql, now, "uploads_refused", &record.key, device, is_refused.then_some(&*detail))?;
    failpoint::point("report_kept");
    Ok(())
}

fn record(row: &Row<'_>) -> Result<DeviceRecord, StoreError> {
    let status = match row.text(4)? {
        "claimed" => DeviceStatus::Claimed,
        "active" => DeviceStatus::Active,
        _revoked => DeviceStatus::Revoked,
    };
    let branches = row.optional_text(13)?.unwrap_or_default().split_whitespace().map(BranchId::parse);
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
        token_at: row.optional_time(11)?,
        revoked_at: row.optional_time(8)?,
        lost_at: row.optional_time(12)?,
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
