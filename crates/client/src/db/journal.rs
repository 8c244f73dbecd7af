//! The journal: operations on disk before anybody is told, their verdicts, and what becomes of rejected ones.

use mstore_engine::{
    QueuedOperation,
    overlay::{StockChange, StockEffect, effects_of},
};
use mstore_protocol::{Code, Operation, OperationId, OperationKind, Row, Timestamp, Verdict, VerdictStatus, limits::JOURNAL_KEEP_DAYS};
use rusqlite::{Connection, params};

use super::{DbError, LocalDb, count_unshown, damaged};

/// What is to be written to the journal.
#[derive(Debug)]
pub(crate) struct NewOperation {
    pub(crate) id: OperationId,
    pub(crate) occurred_at: Timestamp,
    pub(crate) replaces: Option<OperationId>,
}

const DAY_MS: i64 = 86_400_000;

impl LocalDb {
    /// The number that the next operation will have.
    pub(crate) fn next_device_seq(&self) -> Result<u64, DbError> {
        let last = self.state("device_seq")?;
        let last: u64 = last.map_or(Ok(0), |raw| raw.parse()).map_err(|error| damaged("device_seq", error))?;
        Ok(last + 1)
    }

    /// Writes an operation and its effect on the overlay, fsynced before it returns. `check` sees it with its number and may refuse.
    pub(crate) fn commit<E: From<DbError>>(
        &mut self,
        new: &NewOperation,
        make: impl FnOnce(u64, &dyn Fn(&str) -> Option<Row>) -> Result<OperationKind, E>,
        check: impl FnOnce(&Operation) -> Result<String, E>,
    ) -> Result<Operation, E> {
        self.end_ahead()?;
        let device_seq = self.next_device_seq()?;
        let product = |id: &str| product_row(&self.conn, id);
        let kind = make(device_seq, &product)?;
        let effects = effects_of(&kind, product);
        let operation = Operation { id: new.id, device_seq, occurred_at: new.occurred_at, replaces: new.replaces, kind };
        let body = check(&operation)?;
        self.write_durably(&operation, &body, &effects).map_err(E::from)?;
        self.unshown += 1;
        Ok(operation)
    }

    fn write_durably(&self, operation: &Operation, body: &str, effects: &[StockEffect]) -> Result<(), DbError> {
        let conn = &self.conn;
        conn.execute_batch("PRAGMA synchronous = FULL")?;
        let written = Self::transaction(conn, |conn| {
            let device_seq = operation.device_seq;
            conn.prepare_cached("INSERT INTO operation (device_seq, id, at, body, state) VALUES (?1, ?2, ?3, ?4, 'queued')")?
                .execute(params![device_seq, operation.id.to_string(), operation.occurred_at.as_ms(), body])?;
            conn.prepare_cached(
                "INSERT INTO state (name, value) VALUES ('device_seq', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )?
            .execute([device_seq.to_string()])?;
            if let Some(old) = operation.replaces {
                let taken = conn.execute(
                    "UPDATE operation SET state = 'replaced', replaced_by = ?2 WHERE id = ?1 AND state = 'rejected'",
                    [old.to_string(), operation.id.to_string()],
                )?;
                if taken == 0 {
                    return Err(DbError::NotRejected { id: old });
                }
            }
            write_effects(conn, device_seq, effects)?;
            Ok::<_, DbError>(())
        });
        conn.execute_batch("PRAGMA synchronous = NORMAL")?;
        written
    }

    /// Operations without a verdict, by `device_seq`.
    pub(crate) fn queue(&self) -> Result<Vec<QueuedOperation>, DbError> {
        self.queued("SELECT id, at FROM operation WHERE state = 'queued' ORDER BY device_seq")
    }

    /// Accepted operations young enough to be handed in again wait for a verdict again; gives all that wait.
    pub(crate) fn requeue(&mut self, now: Timestamp) -> Result<Vec<QueuedOperation>, DbError> {
        let since = now.as_ms() - JOURNAL_KEEP_DAYS * DAY_MS;
        Self::transaction(&self.conn, |conn| {
            conn.execute(
                "UPDATE operation SET state = 'queued' WHERE (state = 'accepted' OR (state = 'replaced' AND by_operator = 1))
                 AND elsewhere = 0 AND at >= ?1",
                [since],
            )?;
            Ok::<_, DbError>(())
        })?;
        self.queue()
    }

    /// Accepted operations whose commit was not shown wait for a verdict again: a new session does not know what number they were given, and
    /// so could not tell that the server has lost them.
    pub(crate) fn queue_unshown(&mut self) -> Result<(), DbError> {
        Self::transaction(&self.conn, |conn| {
            conn.execute("UPDATE operation SET state = 'queued' WHERE state = 'accepted' AND shown = 0 AND elsewhere = 0", [])?;
            Ok::<_, DbError>(())
        })
    }

    /// Whether an operation that had its verdict waits for one again.
    pub(super) fn has_requeued(&self) -> rusqlite::Result<bool> {
        let mut find = self.conn.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM operation WHERE state = 'queued' AND (seq IS NOT NULL OR code = 'awaits_backend'))",
        )?;
        find.query_row([], |row| row.get(0))
    }

    fn queued(&self, sql: &str) -> Result<Vec<QueuedOperation>, DbError> {
        let mut read = self.conn.prepare_cached(sql)?;
        let rows = read.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
        rows.map(|row| {
            let (id, at) = row?;
            let id = OperationId::parse(&id).ok_or_else(|| damaged("an operation id", &id))?;
            Ok(QueuedOperation { id, at: Timestamp::from_ms(at) })
        })
        .collect()
    }

    /// The bodies of operations, in the order asked for.
    pub(crate) fn bodies(&self, ids: &[OperationId]) -> Result<Vec<String>, DbError> {
        let mut read = self.conn.prepare_cached("SELECT body FROM operation WHERE id = ?1")?;
        ids.iter().map(|id| Ok(read.query_row([id.to_string()], |row| row.get(0))?)).collect()
    }

    /// Writes verdicts down; true when some operation waits for one again. An accepted operation stays in the overlay until its commit is shown; a rejected one leaves it now.
    pub(crate) fn settle(&mut self, verdicts: &[Verdict]) -> Result<bool, DbError> {
        let cursor = self.cursor;
        Self::transaction(&self.conn, |conn| {
            for verdict in verdicts {
                match verdict.status {
                    VerdictStatus::Accepted | VerdictStatus::Duplicate => {
                        let (epoch, code) = (cursor.map(|cursor| cursor.epoch.to_string()), verdict.code.map(Code::as_str));
                        conn.prepare_cached(
                            "UPDATE operation SET state = 'accepted', epoch = ?2, seq = ?3, code = ?4, detail = ?5,
                               named = CASE ?4 WHEN 'awaits_backend' THEN 0 ELSE named END
                             WHERE id = ?1 AND state = 'queued'",
                        )?
                        .execute(params![verdict.id, epoch, verdict.seq, code, verdict.detail])?;
                    }
                    VerdictStatus::Rejected => {
                        let code = verdict.code.unwrap_or(Code::Unknown).as_str();
                        conn.prepare_cached(
                            "UPDATE operation SET state = 'rejected', code = ?2, detail = ?3 WHERE id = ?1 AND state = 'queued'",
                        )?
                        .execute(params![verdict.id, code, verdict.detail])?;
                        conn.prepare_cached(
                            "DELETE FROM pending_effect WHERE device_seq = (SELECT device_seq FROM operation WHERE id = ?1)",
                        )?
                        .execute([&verdict.id])?;
                    }
                }
            }
            if let Some(cursor) = cursor {
                super::apply::leave_overlay(conn, cursor, std::iter::empty())?;
            }
            Ok::<_, DbError>(())
        })?;
        self.unshown = count_unshown(&self.conn)?;
        Ok(self.has_requeued()?)
    }

    /// Forgets operations that were settled longer ago than the server could need them.
    pub(crate) fn prune(&mut self, now: Timestamp) -> Result<(), DbError> {
        let before = now.as_ms() - JOURNAL_KEEP_DAYS * DAY_MS;
        Self::transaction(&self.conn, |conn| {
            conn.execute(
                "DELETE FROM operation WHERE at < ?1 AND ((state = 'accepted' AND shown = 1) OR (state IN ('replaced', 'discarded') AND told = 1))",
                [before],
            )?;
            Ok::<_, DbError>(())
        })
    }
}

fn product_row(conn: &Connection, id: &str) -> Option<Row> {
    let mut find = conn.prepare_cached("SELECT body FROM row WHERE collection = 'product' AND id = ?1").ok()?;
    let body: String = find.query_row([id], |row| row.get(0)).ok()?;
    Row::parse(&body).ok()
}

fn write_effects(conn: &Connection, device_seq: u64, effects: &[StockEffect]) -> Result<(), DbError> {
    let mut write = conn.prepare_cached(
        "INSERT INTO pending_effect (collection, item_id, device_seq, n, is_base, milli) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (n, effect) in effects.iter().enumerate() {
        let (is_base, quantity) = match effect.change {
            StockChange::Delta(delta) => (false, delta),
            StockChange::Base(base) => (true, base),
        };
        write.execute(params![effect.target.as_str(), effect.item_id, device_seq, n, is_base, quantity.as_milli()])?;
    }
    Ok(())
}
