//! Marks as the sequencer takes them: which branches have any, what the rows behind them come to, and that they are done with.

use mstore_engine::sequence::{self, Difference};
use mstore_protocol::{BranchKey, OperationId};
use rusqlite::Connection;

use super::{
    super::mirror::{self, HeadEntry},
    Compared, Within, compare,
};
use crate::{StoreError, cases::alarms};

/// A branch with marks.
pub(super) struct Group {
    pub(super) key: BranchKey,
    pub(super) marks: u64,
}

/// Branches with marks, the longest waiting first; catalogue-wide marks are expanded to the merchant's branches before.
pub(super) fn groups(conn: &Connection) -> Result<Vec<Group>, StoreError> {
    let read = || -> Result<Option<Vec<Group>>, StoreError> {
        let sql = "SELECT merchant_id, branch_id, count(*) FROM mark GROUP BY merchant_id, branch_id ORDER BY min(n)";
        let mut statement = conn.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        let mut groups = Vec::new();
        while let Some(row) = rows.next()? {
            if row.get_ref(1)?.as_str().is_ok_and(|branch| branch == "*") {
                return Ok(None);
            }
            match mirror::key(row, 0) {
                Ok(key) => groups.push(Group { key, marks: row.get(2)? }),
                Err(error) => tracing::error!(%error, "marks for something that cannot be a branch"),
            }
        }
        Ok(Some(groups))
    };
    if let Some(groups) = read()? {
        return Ok(groups);
    }
    conn.prepare_cached(
        "INSERT INTO mark (collection, merchant_id, branch_id, id)
         SELECT m.collection, m.merchant_id, b.branch_id, m.id FROM branch b JOIN mark m ON m.merchant_id = b.merchant_id AND m.branch_id = '*'",
    )?
    .execute([])?;
    conn.prepare_cached("DELETE FROM mark WHERE branch_id = '*'")?.execute([])?;
    Ok(read()?.unwrap_or_default())
}

/// What the marks of a branch come to.
#[derive(Default)]
pub(super) struct Marked {
    /// Sorted.
    pub(super) differences: Vec<Difference>,
    /// Operations that a backend decided about: tills wait to hear of them.
    pub(super) named: Vec<OperationId>,
    /// There were any.
    pub(super) has_marks: bool,
}

/// Compares every marked row of a branch.
pub(super) fn differences(within: Within<'_>, entry: &HeadEntry, key: &BranchKey) -> Result<Marked, StoreError> {
    let Within { conn, config, now } = within;
    let sql = "SELECT DISTINCT collection, id FROM mark WHERE merchant_id = ?1 AND branch_id = ?2 ORDER BY collection, id";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([key.merchant.as_str(), key.branch.as_str()])?;
    let mut marked = Marked::default();
    let quarantined = alarms::quarantined(conn, key)?;
    while let Some(row) = rows.next()? {
        marked.has_marks = true;
        let (Ok(collection), Ok(id)) = (row.get_ref(0)?.as_str(), row.get_ref(1)?.as_str()) else {
            let name = String::from_utf8_lossy(row.get_ref(0)?.as_bytes().unwrap_or_default()).into_owned();
            alarms::quarantine(conn, now, key, &alarms::row_without_id(&name), "no device can be given it")?;
            continue;
        };
        if collection == "branch" {
            continue;
        }
        if collection == "operation" {
            marked.named.extend(OperationId::parse(id));
            continue;
        }
        let compared = compare(conn, entry, key, (collection, id), &config.personal_data)?;
        let is_bad = matches!(compared, Compared::Bad(_));
        for (alarm, ..) in quarantined.iter().filter(|(_, of, row)| !is_bad && of == collection && row.as_deref() == Some(id)) {
            alarms::clear_one(conn, now, *alarm)?;
        }
        match compared {
            Compared::Same => {}
            Compared::Differs(difference) => marked.differences.push(difference),
            Compared::Bad(why) => alarms::quarantine(conn, now, key, &alarms::row(collection, id), &why)?,
        }
    }
    sequence::sort(&mut marked.differences);
    Ok(marked)
}

/// They are done with.
pub(super) fn delete_marks(conn: &Connection, key: &BranchKey) -> Result<(), StoreError> {
    let sql = "DELETE FROM mark WHERE merchant_id = ?1 AND branch_id = ?2";
    conn.prepare_cached(sql)?.execute([key.merchant.as_str(), key.branch.as_str()])?;
    Ok(())
}
