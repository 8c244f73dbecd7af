//! The numbers of a device's journal: dense, so that a missing receipt is seen. Gaps are kept as ranges with their alarm.

use mstore_protocol::{BranchKey, DeviceId};
use rusqlite::{OptionalExtension as _, params};

use super::super::{alarms, job::Work};
use crate::StoreError;

struct Journal<'a> {
    device: &'a DeviceId,
    id: &'a str,
}

/// Notes the numbers of an upload: fills gaps, finds new ones.
pub(super) fn note(work: &Work<'_>, key: &BranchKey, device: &DeviceId, journal_id: &str, mut numbers: Vec<u64>) -> Result<(), StoreError> {
    numbers.sort_unstable();
    numbers.dedup();
    let Some(&newest) = numbers.last() else { return Ok(()) };
    let journal = Journal { device, id: journal_id };
    let sql = "SELECT last_seq FROM journal WHERE device_id = ?1 AND journal_id = ?2";
    let last: u64 = work.conn.prepare_cached(sql)?.query_row([device.as_str(), journal_id], |row| row.get(0)).optional()?.unwrap_or(0);
    let mut expected = last + 1;
    for number in numbers {
        if number <= last {
            fill(work, &journal, number)?;
        } else {
            if number > expected {
                open(work, key, &journal, expected, number - 1)?;
            }
            expected = number + 1;
        }
    }
    if newest > last {
        let sql = "INSERT INTO journal (device_id, journal_id, last_seq) VALUES (?1, ?2, ?3)
            ON CONFLICT (device_id, journal_id) DO UPDATE SET last_seq = excluded.last_seq";
        work.conn.prepare_cached(sql)?.execute(params![device.as_str(), journal_id, newest])?;
    }
    Ok(())
}

fn open(work: &Work<'_>, key: &BranchKey, journal: &Journal<'_>, first: u64, last: u64) -> Result<(), StoreError> {
    let missing = if first == last { format!("number {first}") } else { format!("numbers {first} to {last}") };
    let detail = format!("{missing} of {} (journal {}) have not arrived; look at the device's queue", journal.device, journal.id);
    let alarm = alarms::raise(work.conn, work.now, "device_seq_gap", Some(key), Some(journal.device), &detail)?;
    insert(work, journal, first, last, alarm)
}

fn insert(work: &Work<'_>, journal: &Journal<'_>, first: u64, last: u64, alarm: u64) -> Result<(), StoreError> {
    let sql = "INSERT INTO journal_gap (device_id, journal_id, first_seq, last_seq, alarm) VALUES (?1, ?2, ?3, ?4, ?5)";
    work.conn.prepare_cached(sql)?.execute(params![journal.device.as_str(), journal.id, first, last, alarm])?;
    Ok(())
}

/// A number arrived late: its gap shrinks, splits or closes; with the last number the alarm is cleared.
fn fill(work: &Work<'_>, journal: &Journal<'_>, number: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM journal_gap WHERE device_id = ?1 AND journal_id = ?2 AND first_seq <= ?3 AND last_seq >= ?3 RETURNING first_seq, last_seq, alarm";
    let mut statement = work.conn.prepare_cached(sql)?;
    let gap = statement
        .query_row(params![journal.device.as_str(), journal.id, number], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?, row.get::<_, u64>(2)?))
        })
        .optional()?;
    let Some((first, last, alarm)) = gap else { return Ok(()) };
    if first < number {
        insert(work, journal, first, number - 1, alarm)?;
    }
    if number < last {
        insert(work, journal, number + 1, last, alarm)?;
    }
    if !work.conn.prepare_cached("SELECT 1 FROM journal_gap WHERE device_id = ?1 AND journal_id = ?2 AND alarm = ?3")?.exists(params![
        journal.device.as_str(),
        journal.id,
        alarm
    ])? {
        alarms::clear_one(work.conn, work.now, alarm)?;
    }
    Ok(())
}
