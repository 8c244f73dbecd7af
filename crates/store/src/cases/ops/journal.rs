//! The numbers of a device's journal: dense, so that a missing receipt is seen. Runs of numbers, and the gaps within them with their alarms.
//!
//! A number far beyond the last begins a run of its own, with an alarm: else one wild number would make everything below it one gap, in which the next missing
//! receipt would not be noticed.

use mstore_protocol::{BranchKey, DeviceId, limits::OPERATIONS_PER_UPLOAD_MAX};
use serde_json::Value;

use super::super::{Work, alarms};
use crate::{
    StoreError,
    sql::{Row, args},
};

/// A number of an accepted operation may be this far beyond the last and still follow it: weeks of a till's work.
const ACCEPTED_REACH: u64 = 5_000;
/// One of a rejected operation: what is wrong with it may be its number.
const REJECTED_REACH: u64 = OPERATIONS_PER_UPLOAD_MAX as u64;

/// A number that is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) device_seq: u64,
    pub(super) is_accepted: bool,
}

/// Whose numbers, and where an alarm about them belongs.
pub(super) struct Journal<'a> {
    pub(super) key: &'a BranchKey,
    pub(super) device: &'a DeviceId,
    pub(super) id: &'a str,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    first: u64,
    last: u64,
    alarm: Option<u64>,
}

/// Notes numbers that are present: fills gaps, finds new ones.
pub(super) fn note(work: &Work<'_>, journal: &Journal<'_>, mut entries: Vec<Entry>) -> Result<(), StoreError> {
    entries.sort_unstable();
    let mut open: Option<Run> = None;
    for entry in entries {
        let number = entry.device_seq;
        if let Some(run) = &mut open
            && (run.first..=run.last).contains(&number)
        {
            fill(work, journal, number)?;
            continue;
        }
        let run = match open.take() {
            Some(run) if number == run.last + 1 => run,
            Some(run) => {
                write(work, journal, run)?;
                below(work, journal, number)?
            }
            None => below(work, journal, number)?,
        };
        open = place(work, journal, run, entry)?;
    }
    open.map_or(Ok(()), |run| write(work, journal, run))
}

/// Puts a number into or above the run below it; gives that run, grown, if it did.
fn place(work: &Work<'_>, journal: &Journal<'_>, run: Run, entry: Entry) -> Result<Option<Run>, StoreError> {
    let number = entry.device_seq;
    if number <= run.last {
        fill(work, journal, number)?;
        return Ok(None);
    }
    let above = above(work, journal, number)?.filter(|above| above.first == number + 1);
    let reach = if entry.is_accepted { ACCEPTED_REACH } else { REJECTED_REACH };
    if number - run.last > reach {
        if let Some(above) = above {
            remove(work, journal, above)?;
            return Ok(Some(Run { first: number, ..above }));
        }
        let alarm = raise_jump(work, journal, run.last, number)?;
        return Ok(Some(Run { first: number, last: number, alarm: Some(alarm) }));
    }
    if number > run.last + 1 {
        open_gap(work, journal, run.last + 1, number - 1)?;
    }
    let Some(above) = above else { return Ok(Some(Run { last: number, ..run })) };
    // The two have met: nothing between them is missing.
    remove(work, journal, above)?;
    if let Some(alarm) = above.alarm {
        alarms::clear_one(work.sql, work.now, alarm)?;
    }
    Ok(Some(Run { last: above.last, ..run }))
}

fn run_of(row: &Row<'_>) -> Result<Run, StoreError> {
    Ok(Run { first: row.number(0)?, last: row.number(1)?, alarm: row.optional_number(2)? })
}

/// The run that a number may belong to; before the first number of a journal: an empty one.
fn below(work: &Work<'_>, journal: &Journal<'_>, number: u64) -> Result<Run, StoreError> {
    let sql = "SELECT first_seq, last_seq, alarm FROM journal_run WHERE device_id = ?1 AND journal_id = ?2 AND first_seq <= ?3
        ORDER BY first_seq DESC LIMIT 1";
    let found = work.sql.row(sql, args![journal.device.as_str(), journal.id, number], run_of)?;
    Ok(found.unwrap_or(Run { first: 1, last: 0, alarm: None }))
}

fn above(work: &Work<'_>, journal: &Journal<'_>, number: u64) -> Result<Option<Run>, StoreError> {
    let sql = "SELECT first_seq, last_seq, alarm FROM journal_run WHERE device_id = ?1 AND journal_id = ?2 AND first_seq > ?3
        ORDER BY first_seq LIMIT 1";
    work.sql.row(sql, args![journal.device.as_str(), journal.id, number], run_of)
}

fn write(work: &Work<'_>, journal: &Journal<'_>, run: Run) -> Result<(), StoreError> {
    let sql = "INSERT INTO journal_run (device_id, journal_id, first_seq, last_seq, alarm) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (device_id, journal_id, first_seq) DO UPDATE SET last_seq = excluded.last_seq";
    work.sql.send(sql, args![journal.device.as_str(), journal.id, run.first, run.last, run.alarm])
}

fn remove(work: &Work<'_>, journal: &Journal<'_>, run: Run) -> Result<(), StoreError> {
    let sql = "DELETE FROM journal_run WHERE device_id = ?1 AND journal_id = ?2 AND first_seq = ?3";
    work.sql.send(sql, args![journal.device.as_str(), journal.id, run.first])
}

fn raise_jump(work: &Work<'_>, journal: &Journal<'_>, last: u64, number: u64) -> Result<u64, StoreError> {
    let (device, missing) = (journal.device, name(last + 1, number - 1));
    let detail = format!(
        "number {number} of {device} (journal {}) is far beyond {last}, the last before it: {missing} have not arrived, or the number is wrong",
        journal.id
    );
    alarms::raise(work.sql, work.now, "device_seq_jump", Some(journal.key), Some(device), &detail)
}

fn name(first: u64, last: u64) -> String {
    if first == last { format!("number {first}") } else { format!("numbers {first} to {last}") }
}

fn open_gap(work: &Work<'_>, journal: &Journal<'_>, first: u64, last: u64) -> Result<(), StoreError> {
    let missing = name(first, last);
    let between = match (receipt_no(work, journal, first - 1)?, receipt_no(work, journal, last + 1)?) {
        (Some(before), Some(after)) => format!(", between the receipts {before} and {after}"),
        (Some(before), None) => format!(", after the receipt {before}"),
        (None, Some(after)) => format!(", before the receipt {after}"),
        (None, None) => String::new(),
    };
    let detail = format!("{missing} of {} (journal {}) have not arrived{between}; look at the device's queue", journal.device, journal.id);
    let alarm = alarms::raise(work.sql, work.now, "device_seq_gap", Some(journal.key), Some(journal.device), &detail)?;
    insert_gap(work, journal, first, last, alarm)
}

/// What was printed on the receipt with this number, if it is one.
fn receipt_no(work: &Work<'_>, journal: &Journal<'_>, number: u64) -> Result<Option<String>, StoreError> {
    let sql = "SELECT body FROM operation WHERE device_id = ?1 AND journal_id = ?2 AND device_seq = ?3 LIMIT 1";
    let body = work.sql.row(sql, args![journal.device.as_str(), journal.id, number], |row| row.optional_string(0))?;
    let body: Value = body.flatten().and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default();
    Ok(match &body["receipt_no"] {
        Value::String(text) => Some(text.chars().take(40).collect()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    })
}

fn insert_gap(work: &Work<'_>, journal: &Journal<'_>, first: u64, last: u64, alarm: u64) -> Result<(), StoreError> {
    let sql = "INSERT INTO journal_gap (device_id, journal_id, first_seq, last_seq, alarm) VALUES (?1, ?2, ?3, ?4, ?5)";
    work.sql.send(sql, args![journal.device.as_str(), journal.id, first, last, alarm])
}

/// A number arrived late: its gap shrinks, splits or closes; with the last number the alarm is cleared.
fn fill(work: &Work<'_>, journal: &Journal<'_>, number: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM journal_gap WHERE device_id = ?1 AND journal_id = ?2 AND first_seq <= ?3 AND last_seq >= ?3 RETURNING first_seq, last_seq, alarm";
    let of = args![journal.device.as_str(), journal.id, number];
    let gap = work.sql.row(sql, of, |row| Ok((row.number(0)?, row.number(1)?, row.number(2)?)))?;
    let Some((first, last, alarm)) = gap else { return Ok(()) };
    if first < number {
        insert_gap(work, journal, first, number - 1, alarm)?;
    }
    if number < last {
        insert_gap(work, journal, number + 1, last, alarm)?;
    }
    let sql = "SELECT 1 FROM journal_gap WHERE device_id = ?1 AND journal_id = ?2 AND alarm = ?3";
    if !work.sql.exists(sql, args![journal.device.as_str(), journal.id, alarm])? {
        alarms::clear_one(work.sql, work.now, alarm)?;
    }
    Ok(())
}
