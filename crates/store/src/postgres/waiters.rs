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

use super::snapshot::Snapshot;

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

struct Waiter {
    n: u64,
    xid: u64,
    open: BTreeSet<BranchKey>,
    visited: Visited,
    done: oneshot::Sender<Visited>,
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
    done: oneshot::Receiver<Visited>,
}

impl Wait {
    /// Until every branch was visited; `None` when the store is closed.
    pub(super) async fn visited(&mut self) -> Option<Visited> {
        (&mut self.done).await.ok()
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
    pub(super) fn register(self: &Arc<Self>, xid: u64, branches: BTreeSet<BranchKey>) -> Wait {
        let (done, receiver) = oneshot::channel();
        let mut inner = self.lock();
        let n = inner.next;
        inner.next += 1;
        inner.waiters.push(Waiter { n, xid, open: branches, visited: Visited::default(), done });
        Wait { n, waiters: Arc::clone(self), done: receiver }
    }

    /// Some branches were visited with a snapshot.
    pub(super) fn tell(&self, snapshot: &Snapshot, visits: &Visits) {
        self.tell_those(visits, |xid, _| snapshot.sees(xid));
    }

    /// What waits for branches, as `(xid, branch)`.
    pub(super) fn open(&self) -> Vec<(u64, BranchKey)> {
        let inner = self.lock();
        inner.waiters.iter().flat_map(|waiter| waiter.open.iter().map(|key| (waiter.xid, key.clone()))).collect()
    }

    /// The same with a say about each transaction and branch.
    pub(super) fn tell_those(&self, visits: &Visits, sees: impl Fn(u64, &BranchKey) -> bool) {
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
                let _gone = waiter.done.send(waiter.visited);
            } else {
                inner.waiters.push(waiter);
            }
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
        let mut wait = waiters.register(15, BTreeSet::from([key("a"), key("b")]));
        let visits = |branch: &str, seq| Visits {
            commits: BTreeMap::from([(key(branch), seq)]),
            heads: BTreeMap::from([(key(branch), Some(seq))]),
            durable_at_us: 1,
        };
        waiters.tell(&Snapshot::parse("15:20:15").unwrap(), &visits("a", 1));
        waiters.tell(&Snapshot::parse("20:20:").unwrap(), &visits("a", 2));
        waiters.tell(&Snapshot::parse("21:21:").unwrap(), &visits("a", 3));
        waiters.tell(&Snapshot::parse("21:21:").unwrap(), &visits("b", 7));
        let visited = wait.visited().await.unwrap();
        assert_eq!(visited.commits, BTreeMap::from([(key("a"), 2), (key("b"), 7)]));
        drop(wait);
        assert!(waiters.open().is_empty());
    }
}
