//! Whom a new connection leads to. A connection that broke by itself means nothing: the same database server goes on as it was. Another one, be it the same
//! database after a crash or a replica that took its place, may give out numbers of transactions that were seen already, and may not have the newest commits,
//! as after the restore of a backup.

use deadpool_postgres::Object;
use mstore_protocol::{BranchKey, Epoch, Head};
use tokio_postgres::Error;

use super::{
    super::{
        IDS_PER_START, lease, life,
        mirror::{columns, signed},
        restore::RESTORED,
        snapshot::Shards,
        source::place,
    },
    Sequencer, Trouble,
};

/// Heads in memory that the database does not have: it has not come as far, or it has another commit of that number.
const MISSING: &str =
    "SELECT k.i FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[]) WITH ORDINALITY AS k (merchant_id, branch_id, epoch, seq, tag, i)
    JOIN head h ON h.merchant_id = k.merchant_id AND h.branch_id = k.branch_id
    WHERE h.epoch = k.epoch AND (h.seq < k.seq OR EXISTS (SELECT FROM commit_log c WHERE c.head = h.n AND c.seq = k.seq AND c.tag <> k.tag))";

impl Sequencer {
    /// Before anything is done on a connection.
    pub(super) async fn meet(&mut self, client: &Object) -> Result<(), Trouble> {
        let made = Object::metrics(client).created;
        if self.met.is_some_and(|(last, _)| last == made) {
            return Ok(());
        }
        lease::sign(client, &self.shared).await?;
        let life = life::of(client).await?;
        if self.met.is_some_and(|(_, last)| last != life) {
            self.begin_again(client).await?;
        }
        self.met = Some((made, life));
        self.shared.waiters.lose_all_but(life);
        Ok(())
    }

    /// Nothing that is remembered counts any more. The shards are free until they are taken anew, and what is in the outbox gets new numbers by that.
    async fn begin_again(&mut self, client: &Object) -> Result<(), Trouble> {
        let missing = missing(client, self.shared.heads()).await?;
        tracing::warn!(missing = missing.len(), "the database was restarted, or another server took its place: beginning again");
        client.batch_execute("BEGIN").await?;
        self.new_epochs(client, &missing).await?;
        client.execute("UPDATE shard SET server_id = NULL, token = token + 1 WHERE server_id = $1", &[&self.shared.server_id]).await?;
        let first_id = self.renumbered(client).await?;
        client.batch_execute("COMMIT").await?;
        self.last_id = self.last_id.max(first_id);
        self.shared.set_held(Shards::default());
        self.balanced_at = None;
        self.since = None;
        self.backlog.clear();
        Ok(())
    }

    /// The number of this start may be given again, too: outbox ids go on above all that this server gave out, and nobody else does there.
    async fn renumbered(&self, client: &Object) -> Result<u64, Error> {
        client.query_one("SELECT pg_advisory_xact_lock('server_start'::regclass::oid::bigint)", &[]).await?;
        let after = signed((self.last_id >> IDS_PER_START) + 1);
        let row = client.query_one("SELECT setval('server_start', greatest(nextval('server_start'), $1))", &[&after]).await?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0) << IDS_PER_START)
    }

    /// Does what the first device with a lost cursor would make us do, before any commit takes a number that a device knows already.
    async fn new_epochs(&self, client: &Object, missing: &[(BranchKey, Head)]) -> Result<(), Error> {
        let (now, raise) =
            (self.now().to_string(), "INSERT INTO alarm (at, kind, merchant_id, branch_id, detail) VALUES ($1, $2, $3, $4, $5)");
        for (key, head) in missing {
            let (merchant, branch) = (key.merchant.as_str(), key.branch.as_str());
            let (before, after) = (head.epoch.to_string(), Epoch::from_bits(rand::random()).to_string());
            let sql = "UPDATE head SET epoch = $1, at = $2, is_untold = 1 WHERE merchant_id = $3 AND branch_id = $4 AND epoch = $5";
            if client.execute(sql, &[&after, &now, &merchant, &branch, &before]).await? == 0 {
                continue;
            }
            let detail = format!(
                "this server made commit {} and the database does not have it: it lost its newest commits in a failover or was restored from a \
                 backup. A new epoch was started; devices compare, fetch what differs and upload again what they did in the last 30 days",
                head.seq
            );
            tracing::error!(branch = %key, detail, "commits are lost");
            client.execute(raise, &[&now, &RESTORED, &merchant, &branch, &detail]).await?;
            let sql = "INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('branch', $1, $2, '')";
            client.execute(sql, &[&merchant, &branch]).await?;
        }
        Ok(())
    }
}

async fn missing(client: &Object, heads: Vec<(BranchKey, Head)>) -> Result<Vec<(BranchKey, Head)>, Error> {
    let (merchants, branches) = columns(heads.iter().map(|(key, _)| key));
    let epochs: Vec<String> = heads.iter().map(|(_, head)| head.epoch.to_string()).collect();
    let seqs: Vec<i64> = heads.iter().map(|(_, head)| signed(head.seq)).collect();
    let tags: Vec<String> = heads.iter().map(|(_, head)| head.tag.to_string()).collect();
    let rows = client.query(MISSING, &[&merchants, &branches, &epochs, &seqs, &tags]).await?;
    Ok(rows.iter().map(|row| heads[place(row)].clone()).collect())
}
