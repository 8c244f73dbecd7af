//! The end of a run: when it is quiet, and what must be true then.

use std::collections::{BTreeMap, BTreeSet};

use mstore_protocol::{DeviceState, OperationId};

use super::World;
use crate::{
    device::{Device, journal::State},
    plan::{Act, Deed, Edit},
    promise::{Kept, Promise, broken},
    server::Registered,
    truth,
};

/// In calm weather everything is everywhere after this, milliseconds.
const CALM_LAG_MS: u64 = 1_500;

/// A run that kept all promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Commits of the server, in all branches.
    pub commits: u64,
    /// Operations completed on devices.
    pub operations: usize,
    /// Of these: rejected, and among the dead letters.
    pub rejected: usize,
    /// Events handled.
    pub events: u64,
    /// Virtual milliseconds until all was quiet.
    pub took_ms: u64,
    /// Times that the server was put back to a backup.
    pub restores: u32,
}

/// What is written at last, in both branches.
pub(super) fn last_words() -> Vec<Edit> {
    vec![Edit::PutProduct("tea"), Edit::Carry { branch: 0, milli: 1 }, Edit::Carry { branch: 1, milli: -1 }]
}

impl World {
    /// A restored server that has not come as far again as it once was.
    pub(super) fn is_below_its_past(&self) -> bool {
        self.server.db.branches.iter().zip(&self.truth.past).any(|(branch, highest)| branch.state.seq <= *highest)
    }

    /// Nobody has anything to do any more, as far as they can know.
    pub(super) fn is_quiet(&self) -> bool {
        let server = &self.server.db;
        let settled = server.outbox.is_empty() && !server.has_marks() && !self.is_below_its_past();
        settled
            && self.devices.iter().zip(&server.registry).all(|(device, registered)| {
                let live = device.is_on && device.session.status().state == DeviceState::Live;
                let here = device.db.login.branch == registered.branch;
                let at_head = device.db.cursor == Some(server.branches[registered.branch].cursor());
                live && here && at_head && device.db.queue().is_empty() && device.session.status().queue_depth == 0 && !device.is_rotten
            })
    }

    pub(super) fn differences(&self) -> String {
        let of = |(device, registered): (&Device, &Registered)| {
            let status = device.session.status();
            let (state, cursor, queued) = (status.state, device.db.cursor, device.db.queue().len());
            let on = if device.is_on { "" } else { ", off" };
            let (here, there) = (device.db.login.branch, registered.branch);
            let known = status.queue_depth;
            format!("{} of branch {here} ({there}) {state:?} at {cursor:?}, {queued} queued, {known} known to be{on}", device.name)
        };
        let heads: Vec<String> = self.server.db.branches.iter().map(|branch| branch.cursor().to_string()).collect();
        let each: Vec<String> = self.devices.iter().zip(&self.server.db.registry).map(of).collect();
        let (waiting, marked) = (self.server.db.outbox.len(), self.server.db.has_marks());
        format!("server {heads:?}, {waiting} in its outbox, marks {marked}; {}", each.join("; "))
    }

    /// Everything equal, everything published, every operation accounted for once.
    pub(super) fn verdict(&self) -> Kept<Outcome> {
        let server = &self.server.db;
        for (n, device) in self.devices.iter().enumerate() {
            truth::check_equal(n, device, server)?;
            self.check_counters(n, device)?;
        }
        self.truth.all_published()?;
        truth::check_server(server)?;
        let rejected = self.check_operations()?;
        self.check_numbers()?;
        if self.plan.weather.is_calm() && self.now > self.plan.active_ms + CALM_LAG_MS {
            return broken(Promise::Convergence, format!("nothing went wrong, and all was quiet only at {} ms", self.now));
        }
        Ok(Outcome {
            commits: server.branches.iter().map(|branch| branch.state.seq).sum(),
            operations: self.truth.completed.len(),
            rejected,
            events: self.steps,
            took_ms: self.now,
            restores: self.server.restores,
        })
    }

    /// What a device had to do must have had a reason.
    fn check_counters(&self, n: usize, device: &Device) -> Kept {
        let counters = device.session.counters();
        if device.rots == 0 && counters.digest_mismatches > 0 {
            let what = format!(
                "device {n} had another digest than the server {} times, and nobody had touched its rows",
                counters.digest_mismatches
            );
            return broken(Promise::TrueStates, what);
        }
        // Who asks while frames are on their way asks for what is missing.
        let asked = self.plan.steps.iter().filter(|step| matches!(step.act, Act::Deed(Deed::Sync { .. } | Deed::Resync { .. }))).count();
        if self.plan.weather.is_calm() && (counters.gaps > asked as u64 || counters.renumberings > 0) {
            return broken(Promise::Convergence, format!("nothing went wrong, and device {n} saw gaps: {counters:?}"));
        }
        Ok(())
    }

    /// Every completed operation is at the server once, or rejected and in the list of dead letters. Gives how many those are.
    fn check_operations(&self) -> Kept<usize> {
        let server = &self.server.db;
        let mut entries = BTreeMap::new();
        for entry in self.devices.iter().flat_map(|device| &device.db.journal) {
            entries.insert(entry.operation.id, entry);
        }
        let mut rejected = 0;
        for id in self.truth.completed.keys().filter(|id| !self.truth.lost_with_disk.contains(*id)) {
            let recorded = server.operations.get(id);
            let Some(entry) = entries.get(id) else {
                if recorded.is_some() {
                    continue;
                }
                return broken(Promise::ExactlyOnce, format!("operation {id} is neither on its device nor at the server"));
            };
            let fits = match entry.state {
                State::Accepted => recorded.is_some_and(|of| of.accepted && of.times == 1) && entry.shown,
                State::Rejected => entry.code.is_some() && recorded.is_none_or(|of| !of.accepted),
                State::Queued => false,
            };
            // A moved device does not hand in at a restored server what it did at its old branch; and what changed no row has no commit that a
            // restored server would be seen to have lost.
            let left_behind = (entry.elsewhere || self.truth.is_idle(*id)) && self.truth.lost_by_restore.contains(id);
            if !fits && !left_behind {
                let what = format!("operation {id} ended as {:?}, shown {}, at the server {recorded:?}", entry.state, entry.shown);
                return broken(Promise::ExactlyOnce, what);
            }
            rejected += usize::from(entry.state == State::Rejected);
        }
        self.check_nothing_made_up()?;
        Ok(rejected)
    }

    fn check_nothing_made_up(&self) -> Kept {
        match self.server.db.operations.keys().find(|id| !self.truth.completed.contains_key(*id)) {
            Some(id) => broken(Promise::ExactlyOnce, format!("the server has operation {id}, which nobody completed")),
            None => Ok(()),
        }
    }

    /// The numbers of each journal are dense, but for those that were lost with a disk.
    fn check_numbers(&self) -> Kept {
        for ((device, journal), numbers) in &self.server.db.journals {
            let held: BTreeSet<u64> = numbers.keys().copied().collect();
            let last = held.last().copied().unwrap_or(0);
            let twice: Vec<&BTreeSet<OperationId>> = numbers.values().filter(|ids| ids.len() > 1).collect();
            if !self.truth.has_lost_disk && (held.len() as u64 != last || !twice.is_empty()) {
                return broken(
                    Promise::ExactlyOnce,
                    format!("the numbers of {device}, {journal} have holes or stand twice: {held:?}, {twice:?}"),
                );
            }
        }
        Ok(())
    }
}
