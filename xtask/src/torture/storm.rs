//! The faults: what breaks when, and when it is mended again. One thread, a list of what is due, and lots drawn from the seed.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    Shop,
    chance::Chance,
    gate::Cable,
    letters,
    process::Process,
    wait::{pause, until},
};

/// Between two sales over all tills.
const SELL_EVERY: Duration = Duration::from_millis(60);

/// What was done to the shop.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) till_kills: usize,
    pub(super) server_kills: usize,
    pub(super) broker_kills: usize,
    pub(super) pauses: usize,
    pub(super) cuts: usize,
    /// Links of tills that were set down.
    pub(super) links_down: usize,
    pub(super) full_disks: usize,
    /// Commands given to tills, whether they lived to hear them or not.
    pub(super) commands: usize,
    /// Processes that ended although nobody killed them.
    pub(super) own_ends: Vec<String>,
}

impl Tally {
    pub(super) fn kills(&self) -> usize {
        self.till_kills + self.server_kills + self.broker_kills
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Till(usize),
    Server,
    Broker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Sell,
    Kill,
    Pause,
    Cut,
    FillDisk,
    Look,
    Start(Who),
    Continue(Who),
    PlugIn(usize),
    LinkUp(usize),
    FreeDisk,
}

pub(super) struct Storm<'a> {
    shop: &'a mut Shop,
    chance: Chance,
    due: BinaryHeap<Reverse<(Instant, Act)>>,
    kill_every: Duration,
    pub(super) tally: Tally,
    disk_is_full: bool,
}

impl<'a> Storm<'a> {
    pub(super) fn new(shop: &'a mut Shop, seed: u64, seconds: u64, kills: usize) -> Self {
        let kills = u32::try_from(kills).unwrap_or(u32::MAX).max(1);
        let kill_every = Duration::from_secs(seconds) / kills;
        Self { shop, chance: Chance::new(seed), due: BinaryHeap::new(), kill_every, tally: Tally::default(), disk_is_full: false }
    }

    /// Lets it rage until both the time and the kills are reached, then mends everything.
    pub(super) fn rage(&mut self, seconds: u64, kills: usize) -> Result<()> {
        let begun = Instant::now();
        for act in [Act::Sell, Act::Kill, Act::Pause, Act::Cut, Act::FillDisk, Act::Look] {
            self.again(act);
        }
        let (end, patience) = (begun + Duration::from_secs(seconds), begun + Duration::from_secs(seconds * 2));
        while (Instant::now() < end || self.tally.kills() < kills) && Instant::now() < patience {
            let Some(Reverse((at, act))) = self.due.pop() else { break };
            pause(at.saturating_duration_since(Instant::now()));
            self.perform(act)?;
        }
        self.mend()
    }

    fn after(&mut self, wait: Duration, act: Act) {
        self.due.push(Reverse((Instant::now() + wait, act)));
    }

    /// The next one of a fault that comes again and again.
    fn again(&mut self, act: Act) {
        let wait = match act {
            Act::Sell => SELL_EVERY,
            Act::Kill => self.kill_every,
            Act::Pause => self.chance.ms(500, 2_500),
            Act::Cut => self.chance.ms(300, 1_500),
            Act::FillDisk => self.chance.ms(8_000, 20_000),
            Act::Look => Duration::from_millis(250),
            Act::Start(_) | Act::Continue(_) | Act::PlugIn(_) | Act::LinkUp(_) | Act::FreeDisk => return,
        };
        self.after(wait, act);
    }

    fn perform(&mut self, act: Act) -> Result<()> {
        self.again(act);
        match act {
            Act::Sell => self.sell(),
            Act::Kill => self.kill(),
            Act::Pause => self.pause_somebody(),
            Act::Cut => self.cut()?,
            Act::FillDisk => {
                self.disk_is_full = true;
                self.tally.full_disks += 1;
                self.shop.server.disk.fill(self.shop.server.process.as_ref().map(Process::id));
                let wait = self.chance.ms(500, 3_000);
                self.after(wait, Act::FreeDisk);
            }
            Act::FreeDisk => {
                self.disk_is_full = false;
                self.shop.server.disk.free(self.shop.server.process.as_ref().map(Process::id));
            }
            Act::Look => self.look(),
            Act::Start(who) => self.start(who)?,
            Act::Continue(who) => {
                if let Some(process) = self.process(who) {
                    // Killed meanwhile, or another one by now: then there is nothing to continue.
                    let _gone = process.signal("CONT");
                }
            }
            Act::PlugIn(n) => self.shop.tills[n].set_cables(Cable::Plugged, Cable::Plugged),
            Act::LinkUp(n) => self.set_link(n, true)?,
        }
        Ok(())
    }

    fn process(&mut self, who: Who) -> &mut Option<Process> {
        match who {
            Who::Till(n) => &mut self.shop.tills[n].process,
            Who::Server => &mut self.shop.server.process,
            Who::Broker => &mut self.shop.broker.process,
        }
    }

    /// Of a hundred lots 84 fall on tills, 9 on the server, 7 on the broker.
    fn somebody(&mut self) -> Who {
        match self.chance.below(100) {
            0..84 => Who::Till(self.chance.below(self.shop.tills.len())),
            84..93 => Who::Server,
            _ => Who::Broker,
        }
    }

    fn sell(&mut self) {
        let n = self.chance.below(self.shop.tills.len());
        let product = super::product(self.chance.below(super::PRODUCTS));
        let quantity = 1 + self.chance.below(3);
        let line = match self.chance.below(40) {
            kind if kind < letters::KINDS => letters::order(kind, &product),
            4..8 => format!("return {product} 1"),
            8..12 => format!("receive {product} {quantity}"),
            12..16 => format!("adjust {product} -{quantity}"),
            _ => format!("sell {product} {quantity}"),
        };
        self.tally.commands += 1;
        self.shop.tills[n].say(&line);
    }

    fn kill(&mut self) {
        let who = self.somebody();
        let Some(process) = self.process(who).take() else { return };
        process.kill();
        match who {
            Who::Till(_) => self.tally.till_kills += 1,
            Who::Server => self.tally.server_kills += 1,
            Who::Broker => self.tally.broker_kills += 1,
        }
        let wait = self.chance.ms(0, 700);
        self.after(wait, Act::Start(who));
    }

    fn start(&mut self, who: Who) -> Result<()> {
        match who {
            Who::Till(n) => self.shop.tills[n].start(None),
            Who::Server => self.shop.server.start(None),
            Who::Broker => self.shop.broker.restart(),
        }
    }

    fn pause_somebody(&mut self) {
        let who = self.somebody();
        let wait = self.chance.ms(100, 3_000);
        let stopped = self.process(who).as_ref().is_some_and(|process| process.signal("STOP").is_ok());
        if stopped {
            self.tally.pauses += 1;
            self.after(wait, Act::Continue(who));
        }
    }

    /// A till loses its network: by its link, where it has one of its own, or by its proxies.
    fn cut(&mut self) -> Result<()> {
        let n = self.chance.below(self.shop.tills.len());
        let wait = self.chance.ms(300, 6_000);
        if self.chance.below(2) == 0 && self.shop.tills[n].link.is_some() {
            self.tally.links_down += 1;
            self.after(wait, Act::LinkUp(n));
            return self.set_link(n, false);
        }
        let kind = if self.chance.below(2) == 0 { Cable::Silent } else { Cable::Cut };
        let (http, mqtt) = match self.chance.below(4) {
            0 => (kind, Cable::Plugged),
            1 => (Cable::Plugged, kind),
            _ => (kind, kind),
        };
        self.shop.tills[n].set_cables(http, mqtt);
        self.tally.cuts += 1;
        self.after(wait, Act::PlugIn(n));
        Ok(())
    }

    fn set_link(&self, n: usize, is_up: bool) -> Result<()> {
        self.shop.tills[n].link.as_ref().map_or(Ok(()), |link| link.set(is_up))
    }

    /// Whoever ended on its own is noted and started again.
    fn look(&mut self) {
        let all = (0..self.shop.tills.len()).map(Who::Till).chain([Who::Server, Who::Broker]);
        for who in all.collect::<Vec<_>>() {
            let ended = self.process(who).as_mut().and_then(Process::has_ended);
            let Some(status) = ended else { continue };
            if let Some(process) = self.process(who).take() {
                process.kill();
            }
            let disk = if self.disk_is_full { ", the server's disk being full" } else { "" };
            self.tally.own_ends.push(format!("{who:?}: {status}{disk}"));
            self.after(Duration::from_millis(500), Act::Start(who));
        }
    }

    /// Everything runs again, nothing is cut, there is room on the disk.
    fn mend(&mut self) -> Result<()> {
        self.due.clear();
        self.perform(Act::FreeDisk)?;
        let all: Vec<Who> = [Who::Server, Who::Broker].into_iter().chain((0..self.shop.tills.len()).map(Who::Till)).collect();
        self.look();
        for who in all {
            if self.process(who).is_none() {
                self.start(who)?;
            }
            self.perform(Act::Continue(who))?;
        }
        for (n, till) in self.shop.tills.iter().enumerate() {
            till.set_cables(Cable::Plugged, Cable::Plugged);
            self.set_link(n, true)?;
        }
        let server = &self.shop.server;
        // One that was alive all the time said so long ago.
        until("server after the storm", || server.is_ready())
    }
}
