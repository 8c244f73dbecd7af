//! The journal as a file, and the end of a database: nothing is wiped that is nowhere else.

use mstore_protocol::{Enrolment, JOURNAL_FORMAT, JournalFile, Timestamp};
use rusqlite::OptionalExtension as _;
use serde_json::value::RawValue;

use super::{DbError, LocalDb, damaged};

/// The state that says up to which number the journal is in a file.
const EXPORTED: &str = "exported_device_seq";
const CLOCK_OFFSET: &str = "clock_offset_ms";

/// What would be lost if the database went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unsaved {
    /// Without a verdict.
    pub(crate) waiting: u64,
    /// Rejected, and nobody has decided about it.
    pub(crate) rejected: u64,
}

/// A journal ready to be written, and the number of its last operation.
#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) file: JournalFile,
    /// Operations in it that have no verdict.
    pub(crate) waiting: u64,
    last_seq: u64,
}

impl LocalDb {
    /// Everything of the journal that a server may want: what waits, what was rejected, what was accepted in the last days.
    pub(crate) fn export(&self, now: Timestamp) -> Result<Option<Export>, DbError> {
        let (Some(enrolment), Some(journal_id)) = (self.state("enrolment")?, self.state("journal_id")?) else { return Ok(None) };
        let enrolment: Enrolment = serde_json::from_str(&enrolment).map_err(|error| damaged("an enrolment", error))?;
        let mut read = self.conn.prepare_cached(
            "SELECT device_seq, body, state = 'queued' FROM operation WHERE state IN ('queued', 'accepted', 'rejected') AND elsewhere = 0
             ORDER BY device_seq",
        )?;
        let rows = read.query_map([], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?)))?;
        let (mut operations, mut last_seq, mut waiting) = (Vec::new(), 0, 0);
        for row in rows {
            let (device_seq, body, waits) = row?;
            operations.push(RawValue::from_string(body).map_err(|error| damaged("an operation", error))?);
            (last_seq, waiting) = (device_seq, waiting + u64::from(waits));
        }
        let offset = self.state(CLOCK_OFFSET)?.and_then(|raw| raw.parse().ok()).unwrap_or(0);
        let file = JournalFile {
            format: JOURNAL_FORMAT.into(),
            device_id: enrolment.device_id,
            merchant: enrolment.merchant,
            branch: enrolment.branch,
            journal_id,
            clock_offset_ms: offset,
            exported_at: now,
            operations,
        };
        Ok(Some(Export { file, waiting, last_seq }))
    }

    /// The export is in a file, on disk.
    pub(crate) fn exported(&self, export: &Export) -> Result<(), DbError> {
        self.set_state(EXPORTED, &export.last_seq.to_string())
    }

    /// Keeps what is known of the server's clock, for an export without a network.
    pub(crate) fn keep_clock_offset(&self, offset_ms: i64) -> Result<(), DbError> {
        self.set_state(CLOCK_OFFSET, &offset_ms.to_string())
    }

    /// Empties the database and closes it to everybody, this process and others, unless something would be lost: then nothing happens and the answer says what.
    pub(crate) fn wipe(&mut self) -> Result<Option<Unsaved>, DbError> {
        let kept = Self::transaction(&self.conn, |conn| {
            let unsaved = unsaved(conn)?;
            if unsaved != Unsaved::default() {
                return Ok(Some(unsaved));
            }
            // A constraint that nobody fulfils, and no trigger: clients run none.
            conn.execute_batch(
                r#"DELETE FROM row; DELETE FROM staging; DELETE FROM pending_effect; DELETE FROM operation; DELETE FROM state;
                 UPDATE position SET cursor = NULL, digests = '{}';
                 ALTER TABLE operation ADD COLUMN wiped INTEGER CONSTRAINT "this database was wiped" CHECK (wiped IS NOT NULL);
                 ALTER TABLE row ADD COLUMN wiped INTEGER CONSTRAINT "this database was wiped" CHECK (wiped IS NOT NULL);"#,
            )?;
            Ok::<_, DbError>(None)
        })?;
        if kept.is_none() {
            (self.cursor, self.digests, self.unshown) = (None, Default::default(), 0);
        }
        Ok(kept)
    }
}

/// What is neither at the server nor in an exported file.
fn unsaved(conn: &rusqlite::Connection) -> Result<Unsaved, DbError> {
    let exported: Option<String> =
        conn.prepare_cached("SELECT value FROM state WHERE name = ?1")?.query_row([EXPORTED], |row| row.get(0)).optional()?;
    let exported: u64 = exported.and_then(|raw| raw.parse().ok()).unwrap_or(0);
    let mut count = conn.prepare_cached(
        "SELECT count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'rejected') FROM operation
         WHERE state IN ('queued', 'rejected') AND device_seq > ?1",
    )?;
    Ok(count.query_row([exported], |row| Ok(Unsaved { waiting: row.get(0)?, rejected: row.get(1)? }))?)
}
