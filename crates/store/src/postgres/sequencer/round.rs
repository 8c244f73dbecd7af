//! One round: marks become commits, in one transaction over one snapshot.
//!
//! Its first statement locks this server's own row FOR SHARE, which is what makes it the owner: whoever takes its shards deletes that row first, and so
//! waits for a round under way and refuses all later ones. All that a round reads, it reads with the snapshot of that statement.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::Object;
use mstore_engine::sequence::{self, Commit, Delivery, Difference, MassDeletion};
use mstore_protocol::{BranchKey, Collection, OperationId, Seq, Tag, Timestamp};

use super::{
    super::{
        mirror::{self, Failed, HeadEntry},
        source::{self, Wanted},
    },
    extras::{self, Extras},
    marks::{Place, Taken},
};
use crate::{OutboxEntry, OutboxMessage, source_row::SourceRow};

/// Rows read by one statement.
const ROWS_PER_STATEMENT: usize = 5_000;

/// What a round is made with.
pub(super) struct Within<'a> {
    /// In the round's transaction.
    pub(super) client: &'a Object,
    /// The time of the round.
    pub(super) now: Timestamp,
    /// Frames of a branch that may wait.
    pub(super) outbox_per_branch_max: usize,
    /// How many wait, by head.
    pub(super) backlog: &'a HashMap<i64, usize>,
}

/// What a branch came to.
pub(super) enum Outcome {
    /// Compared, and committed if anything differed.
    Done(Option<Seq>),
    /// It would delete too much.
    Held(MassDeletion),
    /// It cannot be compared.
    Blocked(String),
    /// There is no such branch: its marks mean nothing.
    Unknown,
}

/// A branch in a round.
pub(super) struct Branch {
    /// Which.
    pub(super) key: BranchKey,
    /// Its head, as it is after the round.
    pub(super) entry: HeadEntry,
    /// What is known of it beside its rows.
    pub(super) extras: Extras,
    /// What differed.
    pub(super) differences: Vec<Difference>,
    /// Rows that break the rules.
    pub(super) bad: Vec<(Place, String)>,
    /// Rows that were compared and do not.
    pub(super) fine: Vec<Place>,
    /// What it came to.
    pub(super) outcome: Outcome,
    /// Its commit.
    pub(super) commit: Option<Commit>,
    /// Its head says since when it stands still, or no longer.
    pub(super) was_held: bool,
}

impl Branch {
    /// Whether its marks are done with.
    pub(super) fn is_visited(&self) -> bool {
        matches!(self.outcome, Outcome::Done(_) | Outcome::Unknown)
    }

    fn names(&self) -> Vec<OperationId> {
        let named = self.extras.named.iter().filter(|id| !self.extras.operations.contains(id));
        self.extras.operations.iter().chain(named).copied().collect()
    }
}

/// Reads the heads of the branches taken, makes those that are missing, and compares every row.
pub(super) async fn compared(within: &Within<'_>, taken: &Taken) -> Result<Vec<Branch>, Failed> {
    let keys: Vec<BranchKey> = taken.branches.keys().cloned().collect();
    let wanted: Vec<Wanted<'_>> = taken
        .branches
        .iter()
        .flat_map(|(key, places)| places.iter().map(move |(collection, id)| Wanted { key, collection, id }))
        .filter(|wanted| wanted.collection != "branch")
        .collect();
    // The first rows are asked for together with the heads: most rounds are small.
    let (first, others) = wanted.split_at(wanted.len().min(ROWS_PER_STATEMENT));
    let client = within.client;
    let heads = async { mirror::heads(client, &keys).await };
    let extras = async { Ok(extras::read(client, &keys).await?) };
    let (heads, extras, rows) = futures_util::future::try_join3(heads, extras, read(client, first)).await?;
    let mut branches = made(within, keys, heads, extras).await?;
    compare(&mut branches, first, rows);
    for chunk in others.chunks(ROWS_PER_STATEMENT) {
        let rows = read(client, chunk).await?;
        compare(&mut branches, chunk, rows);
    }
    Ok(branches.into_values().collect())
}

type Rows = (Vec<SourceRow>, Vec<Option<(Box<str>, Option<mstore_protocol::RowHash>)>>);

async fn read(client: &Object, wanted: &[Wanted<'_>]) -> Result<Rows, Failed> {
    if wanted.is_empty() {
        return Ok(Rows::default());
    }
    Ok(source::with(client, wanted, mirror::rows(client, wanted)).await?)
}

async fn made(
    within: &Within<'_>,
    keys: Vec<BranchKey>,
    heads: Vec<mirror::Found>,
    extras: Vec<Extras>,
) -> Result<BTreeMap<BranchKey, Branch>, Failed> {
    let missing: Vec<BranchKey> =
        keys.iter().zip(&heads).filter(|(_, found)| found.exists && found.entry.is_none()).map(|(key, _)| key.clone()).collect();
    let new = if missing.is_empty() { Vec::new() } else { mirror::create(within.client, &missing, within.now).await? };
    let mut new: BTreeMap<BranchKey, HeadEntry> = missing.into_iter().zip(new).collect();
    let branches = keys.into_iter().zip(heads).zip(extras).map(|((key, found), extras)| {
        let entry = found.entry.or_else(|| new.remove(&key));
        let outcome = if entry.is_some() { Outcome::Done(None) } else { Outcome::Unknown };
        let entry = entry.unwrap_or_else(|| HeadEntry::none(within.now));
        let was_held = entry.held_since.is_some();
        let branch = Branch {
            key: key.clone(),
            entry,
            extras,
            differences: Vec::new(),
            bad: Vec::new(),
            fine: Vec::new(),
            outcome,
            commit: None,
            was_held,
        };
        (key, branch)
    });
    Ok(branches.collect())
}

fn compare(branches: &mut BTreeMap<BranchKey, Branch>, wanted: &[Wanted<'_>], (new, old): Rows) {
    for ((wanted, new), old) in wanted.iter().zip(new).zip(old) {
        let Some(branch) = branches.get_mut(wanted.key).filter(|branch| matches!(branch.outcome, Outcome::Done(_))) else { continue };
        let place = || (Box::from(wanted.collection), Box::from(wanted.id));
        let name = match Collection::parse(wanted.collection) {
            Ok(name) => name,
            Err(error) => {
                branch.outcome = Outcome::Blocked(format!("a mark names the collection {:?}: {error}", wanted.collection));
                continue;
            }
        };
        let old = old.map(|old| mirror::stored(&name, wanted.id, old));
        let (new, expired) = match new {
            SourceRow::Is(text) => (Some(text), false),
            SourceRow::Gone => (None, false),
            SourceRow::Expired => (None, true),
            SourceRow::Bad(why) => {
                branch.bad.push((place(), why));
                continue;
            }
        };
        if branch.extras.is_quarantined(wanted.collection, wanted.id) {
            branch.fine.push(place());
        }
        if let Some(difference) = Difference::between(&name, wanted.id, old, new) {
            branch.differences.push(Difference { expired, ..difference });
        }
    }
}

/// Makes the commits.
pub(super) fn decide(within: &Within<'_>, branches: &mut [Branch]) {
    for branch in branches.iter_mut().filter(|branch| matches!(branch.outcome, Outcome::Done(_))) {
        sequence::sort(&mut branch.differences);
        let mass = sequence::mass_deletion(&branch.entry.state, &branch.differences).filter(|_| !branch.extras.is_confirmed);
        if let Some(mass) = mass {
            branch.outcome = Outcome::Held(mass);
            continue;
        }
        let tag = Tag::from_bits(rand::random());
        // Tills wait to hear of what is named: without a change there is a commit all the same.
        let nothing_else = || (!branch.extras.named.is_empty()).then(|| sequence::naming(&branch.entry.state, tag, within.now));
        let commit = sequence::commit(&branch.entry.state, &branch.differences, &branch.names(), tag, within.now);
        branch.commit = commit.or_else(nothing_else);
        if let Some(commit) = &branch.commit {
            branch.entry.state = commit.state.clone();
            branch.outcome = Outcome::Done(Some(commit.state.seq));
        }
        branch.entry.held_since = None;
    }
    for branch in branches.iter_mut().filter(|branch| matches!(branch.outcome, Outcome::Held(_) | Outcome::Blocked(_))) {
        branch.entry.held_since.get_or_insert(within.now);
    }
}

/// What is to be published, and which branches' backlog is thrown away for it.
pub(super) fn messages(within: &Within<'_>, branches: &mut [Branch], mut last_id: u64) -> (Vec<(i64, OutboxEntry)>, Vec<i64>) {
    let (mut entries, mut collapsed) = (Vec::new(), Vec::new());
    for branch in branches.iter_mut().filter(|branch| !matches!(branch.outcome, Outcome::Unknown)) {
        let changed_hold = branch.was_held != branch.entry.held_since.is_some();
        let mut messages = match branch.commit.as_mut().map(|commit| std::mem::replace(&mut commit.delivery, Delivery::HeadOnly)) {
            Some(Delivery::Frames(frames)) => {
                frames.into_iter().map(|(collection, payload)| OutboxMessage::Frame { collection, payload: payload.into() }).collect()
            }
            Some(Delivery::HeadOnly) => vec![OutboxMessage::HeadOnly],
            None => Vec::new(),
        };
        let backlog = within.backlog.get(&branch.entry.n).copied().unwrap_or(0);
        if !messages.is_empty() && backlog >= within.outbox_per_branch_max {
            collapsed.push(branch.entry.n);
            messages = vec![OutboxMessage::HeadOnly];
            tracing::warn!(branch = %branch.key, backlog, "outbox collapsed: devices will pull");
        }
        if changed_hold || branch.entry.is_untold {
            messages.push(OutboxMessage::HeadOnly);
            branch.entry.is_untold = false;
        }
        for message in messages {
            last_id += 1;
            let (seq, at) = (branch.entry.state.seq, branch.entry.state.at);
            entries.push((branch.entry.n, OutboxEntry { id: last_id, key: branch.key.clone(), seq, at, message }));
        }
    }
    (entries, collapsed)
}
