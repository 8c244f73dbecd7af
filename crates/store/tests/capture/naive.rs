//! Methods of change capture in their smallest form: three that many a team has built, and the one that this store is built on.

use std::{collections::BTreeSet, sync::OnceLock};

use mstore_rig::Postgres;
use tokio_postgres::IsolationLevel;

use crate::{observer::Observer, session::Session, stage::Reads};

/// Where the controls live.
pub(crate) const SCHEMA: &str = "naive";

const TABLE: &str = "CREATE SCHEMA naive;
CREATE TABLE naive.inventory (merchant_id text, branch_id text, id text, name text, reorder_level_milli bigint,
  PRIMARY KEY (merchant_id, branch_id, id));";

const OUTBOX: &str = "CREATE TABLE naive.outbox (id bigserial PRIMARY KEY, xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  branch_id text, row_id text, value bigint);
CREATE FUNCTION naive.remember() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'DELETE' THEN INSERT INTO naive.outbox (branch_id, row_id) VALUES (OLD.branch_id, OLD.id);
  ELSE INSERT INTO naive.outbox (branch_id, row_id, value) VALUES (NEW.branch_id, NEW.id, NEW.reorder_level_milli); END IF;
  RETURN NULL; END $$;
CREATE TRIGGER remember AFTER INSERT OR UPDATE OR DELETE ON naive.inventory FOR EACH ROW EXECUTE FUNCTION naive.remember();";

const MARKS: &str = "CREATE TABLE naive.mark (branch_id text, id text);
CREATE FUNCTION naive.mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO naive.mark SELECT branch_id, id FROM changed; RETURN NULL; END $$;
CREATE TRIGGER mark_insert AFTER INSERT ON naive.inventory REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION naive.mark();
CREATE TRIGGER mark_update AFTER UPDATE ON naive.inventory REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION naive.mark();
CREATE TRIGGER mark_delete AFTER DELETE ON naive.inventory REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION naive.mark();";

/// A server for the naive methods alone: a long transaction anywhere in it, be it in another database, would hold up a watermark.
pub(crate) fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(Postgres::start)
}

/// A way to learn what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// An outbox with a serial number, read past the last number seen. Loses what commits behind a higher number.
    IdCursor,
    /// The same outbox in the order of transaction numbers, up to the oldest one still running. Loses nothing, and is in an order in which
    /// nothing ever happened; stands still behind any transaction that does.
    XminWatermark,
    /// Marks and rows read by one statement each, every one with its own view of the database. Shows halves of commits.
    MarksStatementByStatement,
    /// Marks and rows read in one snapshot: what the store does.
    MarksInOneSnapshot,
}

/// A method at work.
pub(crate) struct Reader {
    method: Method,
    session: Session,
    last_id: i64,
    last_xid: String,
}

impl Method {
    /// Makes its tables and triggers.
    pub(crate) async fn install(self, url: &str) {
        let session = Session::open(url, "public").await;
        let rest = match self {
            Self::IdCursor | Self::XminWatermark => OUTBOX,
            Self::MarksStatementByStatement | Self::MarksInOneSnapshot => MARKS,
        };
        session.batch_execute(&format!("{TABLE}{rest}")).await.unwrap();
    }
}

impl Reader {
    /// From now on.
    pub(crate) async fn start(method: Method, url: &str, schema: &str) -> Self {
        let session = Session::open(url, schema).await;
        let mut reader = Self { method, session, last_id: 0, last_xid: "0".to_owned() };
        // What was there before is no change.
        reader.poll(&mut Observer::new(0)).await;
        reader
    }

    async fn past_the_last_id(&mut self, observer: &mut Observer) -> usize {
        let sql = "SELECT branch_id, row_id, value, id FROM outbox WHERE id > $1 ORDER BY id";
        let rows = self.session.query(sql, &[&self.last_id]).await.unwrap();
        for row in &rows {
            tell(observer, row);
            self.last_id = row.get(3);
        }
        rows.len()
    }

    async fn below_the_watermark(&mut self, observer: &mut Observer) -> usize {
        let sql = "SELECT branch_id, row_id, value, id, xid::text FROM outbox WHERE (xid, id) > (CAST(CAST($1 AS text) AS xid8), $2)
            AND xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY xid, id";
        let rows = self.session.query(sql, &[&self.last_xid, &self.last_id]).await.unwrap();
        for row in &rows {
            tell(observer, row);
            (self.last_id, self.last_xid) = (row.get(3), row.get(4));
        }
        rows.len()
    }

    async fn marks_one_by_one(&mut self, observer: &mut Observer) -> usize {
        let taken = self.session.query("DELETE FROM mark RETURNING branch_id, id", &[]).await.unwrap();
        let marks: BTreeSet<(&str, &str)> = taken.iter().map(|row| (row.get(0), row.get(1))).collect();
        for (branch, id) in &marks {
            let sql = "SELECT reorder_level_milli FROM inventory WHERE merchant_id = 'm' AND branch_id = $1 AND id = $2";
            match self.session.query_opt(sql, &[branch, id]).await.unwrap() {
                Some(row) => observer.put(branch, id, row.get(0)),
                None => observer.delete(branch, id),
            }
        }
        marks.len()
    }

    async fn marks_in_one_snapshot(&mut self, observer: &mut Observer) -> usize {
        let transaction = self.session.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().await.unwrap();
        let sql = "WITH taken AS (DELETE FROM mark RETURNING branch_id, id)
            SELECT DISTINCT taken.branch_id, taken.id, reorder_level_milli FROM taken
            LEFT JOIN inventory ON merchant_id = 'm' AND inventory.branch_id = taken.branch_id AND inventory.id = taken.id";
        let rows = transaction.query(sql, &[]).await.unwrap();
        transaction.commit().await.unwrap();
        rows.iter().for_each(|row| tell(observer, row));
        rows.len()
    }
}

impl Reads for Reader {
    async fn poll(&mut self, observer: &mut Observer) -> usize {
        let told = match self.method {
            Method::IdCursor => self.past_the_last_id(observer).await,
            Method::XminWatermark => self.below_the_watermark(observer).await,
            Method::MarksStatementByStatement => self.marks_one_by_one(observer).await,
            Method::MarksInOneSnapshot => self.marks_in_one_snapshot(observer).await,
        };
        if told > 0 {
            observer.boundary();
        }
        told
    }
}

fn tell(observer: &mut Observer, row: &tokio_postgres::Row) {
    let (branch, id): (&str, &str) = (row.get(0), row.get(1));
    match row.get(2) {
        Some(value) => observer.put(branch, id, value),
        None => observer.delete(branch, id),
    }
}
