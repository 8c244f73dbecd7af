//! What a round must know of a branch beside its rows: operations to name, a hold, quarantined rows.

use deadpool_postgres::Object;
use mstore_protocol::{BranchKey, OperationId};
use tokio_postgres::Error;

use super::super::{mirror::columns, source::place};

const SQL: &str = "SELECT k.i, 'operation', o.id, o.n FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (merchant_id, branch_id, i)
    JOIN operation o ON o.merchant_id = k.merchant_id AND o.branch_id = k.branch_id AND o.seq IS NULL AND o.status = 'accepted' AND o.awaits_event = 0
  UNION ALL SELECT k.i, 'named', o.id, 0 FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (merchant_id, branch_id, i)
    JOIN named_operation o ON o.merchant_id = k.merchant_id AND o.branch_id = k.branch_id
  UNION ALL SELECT k.i, 'hold', '', h.is_confirmed FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (merchant_id, branch_id, i)
    JOIN hold h ON h.merchant_id = k.merchant_id AND h.branch_id = k.branch_id
  UNION ALL SELECT k.i, 'event', '', 0 FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (merchant_id, branch_id, i)
    WHERE EXISTS (SELECT FROM event_seen e WHERE e.merchant_id = k.merchant_id AND e.branch_id = k.branch_id AND e.seq IS NULL)
  UNION ALL SELECT k.i, a.kind, a.detail, a.id FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (merchant_id, branch_id, i)
    JOIN alarm a ON a.cleared_at IS NULL AND a.kind IN ('row_quarantined', 'branch_blocked') AND a.merchant_id = k.merchant_id AND a.branch_id = k.branch_id
  ORDER BY 1, 4";

/// What is known of a branch.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// Accepted operations that no commit contains yet.
    pub(super) operations: Vec<OperationId>,
    /// Operations to name although nobody uploaded them.
    pub(super) named: Vec<OperationId>,
    /// Its next commit is held.
    pub(super) is_on_hold: bool,
    /// An operator let it go.
    pub(super) is_confirmed: bool,
    /// Events wait for their seq.
    pub(super) has_events: bool,
    /// An alarm says that it cannot be sequenced.
    pub(super) is_alarmed: bool,
    /// Open alarms about rows: number, collection, id.
    pub(super) quarantined: Vec<(i64, String, Option<String>)>,
}

impl Extras {
    /// Whether there is an open alarm about a row.
    pub(super) fn is_quarantined(&self, collection: &str, id: &str) -> bool {
        self.alarm_of(collection, id).is_some()
    }

    /// The number of the alarm about a row.
    pub(super) fn alarm_of(&self, collection: &str, id: &str) -> Option<i64> {
        let of_row = |alarm: &&(i64, String, Option<String>)| alarm.1 == collection && alarm.2.as_deref() == Some(id);
        self.quarantined.iter().find(of_row).map(|(alarm, ..)| *alarm)
    }
}

/// Reads them, one answer for each branch.
pub(super) async fn read(client: &Object, keys: &[BranchKey]) -> Result<Vec<Extras>, Error> {
    let (merchants, branches) = columns(keys);
    let statement = client.prepare_cached(SQL).await?;
    let mut found: Vec<Extras> = keys.iter().map(|_| Extras::default()).collect();
    for row in client.query(&statement, &[&merchants, &branches]).await? {
        let extras = &mut found[place(&row)];
        let (text, number): (&str, i64) = (row.get(2), row.get(3));
        match row.get(1) {
            "operation" => extras.operations.extend(OperationId::parse(text)),
            "named" => extras.named.extend(OperationId::parse(text)),
            "hold" => (extras.is_on_hold, extras.is_confirmed) = (true, number != 0),
            "event" => extras.has_events = true,
            "branch_blocked" => extras.is_alarmed = true,
            _quarantined => extras.quarantined.extend(row_of(text).map(|(collection, id)| (number, collection, id))),
        }
    }
    Ok(found)
}

/// The row that an alarm is about: `product "id": why`.
pub(in crate::postgres) fn row_of(detail: &str) -> Option<(String, Option<String>)> {
    let (collection, rest) = detail.split_once(' ')?;
    let id = serde_json::Deserializer::from_str(rest).into_iter::<String>().next().and_then(Result::ok);
    Some((collection.to_owned(), id))
}
