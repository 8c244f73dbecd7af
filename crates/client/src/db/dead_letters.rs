//! Rejected operations: what is open, what was decided here, and what the server says about either.

use mstore_protocol::{
    Code, DecidedBy, Decision, LocalDecision, Operation, OperationDecision, OperationId, limits::OPERATIONS_PER_UPLOAD_MAX,
};
use rusqlite::{OptionalExtension as _, params};

use super::{DbError, LocalDb, damaged};

/// An operation as the journal has it.
#[derive(Debug, Clone)]
pub(crate) struct Journalled {
    pub(crate) operation: Operation,
    pub(crate) code: Option<Code>,
    pub(crate) detail: Option<String>,
}

/// What the server should hear of, and what to ask it about.
#[derive(Debug, Default)]
pub(crate) struct Undecided {
    pub(crate) decided: Vec<LocalDecision>,
    pub(crate) open: Vec<OperationId>,
}

fn id_of(raw: &str) -> Result<OperationId, DbError> {
    OperationId::parse(raw).ok_or_else(|| damaged("an operation id", raw))
}

impl LocalDb {
    /// Rejected operations that nobody has looked after.
    pub(crate) fn dead_letters(&self) -> Result<Vec<Journalled>, DbError> {
        let mut read = self.conn.prepare_cached("SELECT body, code, detail FROM operation WHERE state = 'rejected' ORDER BY device_seq")?;
        let rows = read.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?, row.get(2)?)))?;
        rows.map(|row| {
            let (body, code, detail) = row?;
            journalled(&body, code.as_deref(), detail)
        })
        .collect()
    }

    /// How many rejected operations nobody has looked after.
    pub(crate) fn dead_letter_count(&self) -> Result<u64, DbError> {
        let mut count = self.conn.prepare_cached("SELECT count(*) FROM operation WHERE state = 'rejected'")?;
        Ok(count.query_row([], |row| row.get(0))?)
    }

    /// A rejected operation.
    pub(crate) fn dead_letter(&self, id: OperationId) -> Result<Option<Journalled>, DbError> {
        let mut read = self.conn.prepare_cached("SELECT body, code, detail FROM operation WHERE id = ?1 AND state = 'rejected'")?;
        let found = read
            .query_row([id.to_string()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?, row.get(2)?)))
            .optional()?;
        found.map(|(body, code, detail)| journalled(&body, code.as_deref(), detail)).transpose()
    }

    /// Gives a rejected operation up; it stays in the journal for the record.
    pub(crate) fn discard(&mut self, id: OperationId) -> Result<bool, DbError> {
        Self::transaction(&self.conn, |conn| {
            Ok::<_, DbError>(
                conn.execute("UPDATE operation SET state = 'discarded' WHERE id = ?1 AND state = 'rejected'", [id.to_string()])? > 0,
            )
        })
    }

    /// Decisions that the server has not heard of, and dead letters that it may have decided about; the oldest of each.
    pub(crate) fn undecided(&self) -> Result<Undecided, DbError> {
        let most = i64::try_from(OPERATIONS_PER_UPLOAD_MAX).unwrap_or(i64::MAX);
        let mut read = self.conn.prepare_cached(
            "SELECT id, device_seq, replaced_by FROM operation WHERE state IN ('replaced', 'discarded') AND told = 0 AND elsewhere = 0
             ORDER BY device_seq LIMIT ?1",
        )?;
        let rows = read.query_map([most], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?, row.get::<_, Option<String>>(2)?)))?;
        let decided = rows.map(|row| {
            let (id, device_seq, replaced_by) = row?;
            Ok(LocalDecision { id: id_of(&id)?, device_seq, replaced_by: replaced_by.as_deref().map(id_of).transpose()? })
        });
        let decided = decided.collect::<Result<_, DbError>>()?;
        let mut read =
            self.conn.prepare_cached("SELECT id FROM operation WHERE state = 'rejected' AND elsewhere = 0 ORDER BY device_seq LIMIT ?1")?;
        let open = read.query_map([most], |row| row.get::<_, String>(0))?.map(|id| id_of(&id?)).collect::<Result<_, DbError>>()?;
        Ok(Undecided { decided, open })
    }

    /// The server has heard of `told`, and these are the decisions that count; an operator's takes the place of one made here in vain.
    pub(crate) fn settled(&mut self, told: &[LocalDecision], standing: &[OperationDecision]) -> Result<(), DbError> {
        Self::transaction(&self.conn, |conn| {
            let mut tell = conn.prepare_cached("UPDATE operation SET told = 1 WHERE id = ?1")?;
            for local in told {
                tell.execute([local.id.to_string()])?;
            }
            let mut overrule = conn.prepare_cached(
                "UPDATE operation SET state = ?2, replaced_by = ?3, detail = ?4, told = 1, by_operator = 1 WHERE id = ?1 AND state IN ('rejected', 'discarded')",
            )?;
            for decision in standing.iter().filter(|decision| decision.decided_by == DecidedBy::Operator) {
                let (state, what) = match decision.decision {
                    Decision::Replaced => ("replaced", "sent again by an operator"),
                    Decision::Discarded => ("discarded", "discarded by an operator"),
                };
                let detail = if decision.reason.is_empty() { what.to_owned() } else { format!("{what}: {}", decision.reason) };
                overrule.execute(params![decision.id.to_string(), state, decision.replaced_by.map(|id| id.to_string()), detail])?;
            }
            Ok::<_, DbError>(())
        })
    }
}

fn journalled(body: &str, code: Option<&str>, detail: Option<String>) -> Result<Journalled, DbError> {
    let operation = serde_json::from_str(body).map_err(|error| damaged("an operation", error))?;
    Ok(Journalled { operation, code: code.and_then(Code::parse), detail })
}
