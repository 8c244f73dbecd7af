//! Who waits for their writes to be sequenced, by this server or by another.
//!
//! A write registers inside its transaction, after it has left a mark `('branch', merchant, branch, '')` for every branch that it waits for: so the first
//! round whose snapshot contains the transaction visits each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use mstore_protocol::{BranchKey, Seq};
use tokio::sync::oneshot;

use super::{
    life::{Life, Xid},
    snapshot::Snapshot,
};

/// What the waiting came to, once the branches were visited.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Visited {
    /// The commits that the visits made.
    pub(super) commits: BTreeMap<BranchKey, Seq>,
    /// Where the branches' heads were then; without those that stand still.
    pub(super) heads: BTreeMap<BranchKey, Seq>,
    /// When the last visit was durable, microseconds since 1970 on this machine's clock.
    pub(super) durable_at_us: i64,
}

/// One round as waiters see it.
#[derive(Debug, Default)]
pub(super) struct Visits {
    /// The commits made.
    pub(super) commits: BTreeMap<BranchKey, Seq>,
    /// Every branch visited with its seq; `None` when it stands still.
    pub(super) heads: BTreeMap<BranchKey, Option<Seq>>,
    /// When it was durable.
    pub(super) durable_at_us: i64,
}

/// Why a write was not seen to be sequenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unseen {
    /// The store is closed.
    Closed,
    /// The database server that kept it is gone. Whether another one has it cannot be told by the number of its transaction.
    Lost,
}

struct Waiter {
    n: u64,
    xid: Xid,
    open: BTreeSet<BranchKey>,
    visited: Visited,
    done: oneshot::Sender<Result<Visited, Unseen>>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    waiters: Vec<Waiter>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Waiters(Mutex<Inner>);

/// A registered wait; dropping it takes the registration back.
pub(super) struct Wait {
    n: u64,
    waiters: Arc<Waiters>,
    done: oneshot::Receiver<Result<Visited, Unseen>>,
}

impl Wait {
    /// Until every branch was visited.
    pub(super) async fn visited(&mut self) -> Result<Visited, Unseen> {
        (&mut self.done).await.unwrap_or(Err(Unseen::Closed))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waiters.lock().waiters.retain(|waiter| waiter.n != self.n);
    }
}

impl Waiters {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a transaction that has not been committed yet.
    pub(super) fn register(self: &Arc<Self>, xid: Xid, branches: BTreeSet<BranchKey>) -> Wait {
        let (done, receiver) = oneshot::channel();
        let mut inner = self.lock();
        let n = inner.next;
        inner.next += 1;
        inner.waiters.push(Waiter { n, xid, open: branches, visited: Visited::default(), done });
        Wait { n, waiters: Arc::clone(self), done: receiver }
    }

    /// Some branches were visited with a snapshot of a database server.
    pub(super) fn tell(&self, life: Life, snapshot: &Snapshot, visits: &Visits) {
        self.tell_those(visits, |xid, _| xid.life == life && snapshot.sees(xid.number));
    }

    /// What waits for branches, as `(transaction, branch)`.
    pub(super) fn open(&self) -> Vec<(Xid, BranchKey)> {
        let inner = self.lock();
        inner.waiters.iter().flat_map(|waiter| waiter.open.iter().map(|key| (waiter.xid, key.clone()))).collect()
    }

    /// The same with a say about each transaction and branch.
    pub(super) fn tell_those(&self, visits: &Visits, sees: impl Fn(Xid, &BranchKey) -> bool) {
        let mut inner = self.lock();
        for waiter in std::mem::take(&mut inner.waiters) {
            let mut waiter = waiter;
            let seen: Vec<BranchKey> =
                waiter.open.iter().filter(|key| visits.heads.contains_key(*key) && sees(waiter.xid, key)).cloned().collect();
            for key in seen {
                waiter.open.remove(&key);
                waiter.visited.commits.extend(visits.commits.get(&key).map(|seq| (key.clone(), *seq)));
                waiter.visited.durable_at_us = visits.durable_at_us;
                if let Some(Some(seq)) = visits.heads.get(&key) {
                    waiter.visited.heads.insert(key, *seq);
                }
            }
            if waiter.open.is_empty() {
                // Whoever gave up waiting does not want to know.
                let _gone = waiter.done.send(Ok(waiter.visited));
            } else {
                inner.waiters.push(waiter);
            }
        }
    }

    /// The database is this server now. Transactions of another life are told so; those of this one wait on, whatever became of some connection.
    pub(super) fn lose_all_but(&self, life: Life) {
        for waiter in self.lock().waiters.extract_if(.., |waiter| waiter.xid.life != life) {
            let _gone = waiter.done.send(Err(Unseen::Lost));
        }
    }

    /// Nobody will be visited any more.
    pub(super) fn close(&self) {
        self.lock().waiters.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(branch: &str) -> BranchKey {
        BranchKey::parse("m", branch).unwrap()
    }

    #[tokio::test]
    async fn a_write_waits_for_the_first_visits_that_contain_it() {
        let waiters = Arc::new(Waiters::default());
        let life = Life(1);
        let mut wait = waiters.register(Xid { life, number: 15 }, BTreeSet::from([key("a"), key("b")]));
        let visits = |branch: &str, seq| Visits {
            commits: BTreeMap::from([(key(branch), seq)]),
            heads: BTreeMap::from([(key(branch), Some(seq))]),
            durable_at_us: 1,
        };
        waiters.tell(life, &Snapshot::parse("15:20:15").unwrap(), &visits("a", 1));
        waiters.tell(life, &Snapshot::parse("20:20:").unwrap(), &visits("a", 2));
        waiters.tell(life, &Snapshot::parse("21:21:").unwrap(), &visits("a", 3));
        waiters.tell(life, &Snapshot::parse("21:21:").unwrap(), &visits("b", 7));
        let visited = wait.visited().await.unwrap();
        assert_eq!(visited.commits, BTreeMap::from([(key("a"), 2), (key("b"), 7)]));
        drop(wait);
        assert!(waiters.open().is_empty());
    }

    #[tokio::test]
    async fn numbers_of_another_database_server_mean_nothing() {
        let waiters = Arc::new(Waiters::default());
        let of = |life, branch| waiters.register(Xid { life: Life(life), number: 15 }, BTreeSet::from([key(branch)]));
        let (mut before, mut after) = (of(1, "a"), of(2, "a"));
        let seen = Visits { heads: BTreeMap::from([(key("a"), Some(4))]), ..Visits::default() };
        waiters.tell(Life(3), &Snapshot::parse("20:20:").unwrap(), &seen);
        assert_eq!(waiters.open().len(), 2);
        waiters.lose_all_but(Life(2));
        assert_eq!(before.visited().await, Err(Unseen::Lost));
        waiters.tell(Life(2), &Snapshot::parse("20:20:").unwrap(), &seen);
        assert_eq!(after.visited().await.unwrap().heads, BTreeMap::from([(key("a"), 4)]));
        let mut last = of(2, "a");
        waiters.close();
        assert_eq!(last.visited().await, Err(Unseen::Closed));
    }
}
