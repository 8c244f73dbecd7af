//! The whole shop as a state machine: a server, a broker, two tills, and everything that can happen to them next.

use std::collections::BTreeMap;

use stateright::{Model, Property};

use crate::{
    rules::{Rule, Rules},
    server::{Cursor, Frame, OPENING, Rows, Server, bit},
    till::{Sale, Till},
};

/// How much may happen in one run: what bounds the number of states. Everything else happens as often as it can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// Tills of the branch, at most two.
    pub(crate) tills: u8,
    /// Tills that sell something.
    pub(crate) sales: u8,
    /// Price changes by the backend.
    pub(crate) prices: u8,
    /// Frames that the broker loses.
    pub(crate) losses: u8,
    /// Frames that the broker delivers twice.
    pub(crate) doubles: u8,
    /// Restarts of the broker: what is on its way is gone, and nobody is subscribed.
    pub(crate) broker_restarts: u8,
    /// Restarts of a till.
    pub(crate) till_restarts: u8,
    /// Answers lost on their way: of uploads, and of `/changes`.
    pub(crate) lost_answers: u8,
    /// Restores of the server from a backup.
    pub(crate) restores: u8,
    /// Frames may be on their way for longer than a restore takes; otherwise they come before it, or never.
    pub(crate) late_frames: bool,
}

impl Bounds {
    /// The same shop when everything that may happen in it has happened.
    fn used_up(self) -> Self {
        Self { tills: self.tills, late_frames: self.late_frames, ..Self::default() }
    }
}

/// What can happen next. Frames of one till come in any order: whichever is on its way may come now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Sell { till: usize },
    Reprice,
    Upload { till: usize, answer_lost: bool },
    Arrive { till: usize, frame: Frame },
    Subscribe { till: usize },
    Ask { till: usize },
    Answer { till: usize },
    Lose { till: usize, frame: Frame },
    Double { till: usize, frame: Frame },
    LoseAnswer { till: usize },
    RestartBroker,
    RestartTill { till: usize },
    Restore { commits: u8 },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Shop {
    server: Server,
    tills: Vec<Till>,
    /// Frames on their way to each till, sorted: the order in which they were sent means nothing.
    wires: Vec<Vec<Frame>>,
    left: Bounds,
    next_tag: u8,
    /// Every state that the server ever had; only the properties look at it.
    history: BTreeMap<Cursor, Rows>,
    restored: bool,
}

/// One size of the world, with all rules or one of them taken out.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    pub(crate) rules: Rules,
    pub(crate) bounds: Bounds,
}

impl Shop {
    fn send(&mut self, frames: &[Frame]) {
        self.next_tag += 1;
        self.note_history();
        for (till, wire) in self.tills.iter().zip(&mut self.wires) {
            if till.subscribed {
                wire.extend(frames);
                wire.sort_unstable();
            }
        }
    }

    fn note_history(&mut self) {
        self.history.insert(self.server.head(), self.server.rows());
    }

    fn take_off_wire(&mut self, till: usize, frame: Frame) {
        let at = self.wires[till].iter().position(|on_wire| *on_wire == frame).expect("it is on its way");
        self.wires[till].remove(at);
    }

    /// A till that has all there is asks nothing in this model: nothing would change (`304`).
    fn may_ask(&self, rules: Rules, till: &Till) -> bool {
        let misses = till.cursor != self.server.head();
        let differs = till.rows != self.server.rows() && rules.hold(Rule::Digest);
        let notices = !till.confirmed || !till.buffer.is_empty();
        till.answer.is_none() && (notices || ((misses || differs) && rules.hold(Rule::Poll)))
    }

    /// What the system does of itself, with no fault and nothing new to do.
    fn progress(&self, rules: Rules, steps: &mut Vec<Step>) {
        for (n, till) in self.tills.iter().enumerate() {
            if till.sale == Sale::Queued {
                steps.push(Step::Upload { till: n, answer_lost: false });
            }
            let mut frames = self.wires[n].clone();
            frames.dedup();
            steps.extend(frames.into_iter().map(|frame| Step::Arrive { till: n, frame }));
            if !till.subscribed {
                steps.push(Step::Subscribe { till: n });
            }
            if self.may_ask(rules, till) {
                steps.push(Step::Ask { till: n });
            }
            if till.answer.is_some() {
                steps.push(Step::Answer { till: n });
            }
        }
    }

    fn events(&self, steps: &mut Vec<Step>) {
        if self.left.prices > 0 {
            steps.push(Step::Reprice);
        }
        if self.left.broker_restarts > 0 {
            steps.push(Step::RestartBroker);
        }
        if self.left.restores > 0 {
            steps.extend((1..=self.server.len()).map(|commits| Step::Restore { commits }));
        }
        for (n, till) in self.tills.iter().enumerate() {
            if self.left.sales > 0 && till.sale == Sale::NotYet {
                steps.push(Step::Sell { till: n });
            }
            if self.left.till_restarts > 0 {
                steps.push(Step::RestartTill { till: n });
            }
            if self.left.lost_answers > 0 && till.sale == Sale::Queued {
                steps.push(Step::Upload { till: n, answer_lost: true });
            }
            if self.left.lost_answers > 0 && till.answer.is_some() {
                steps.push(Step::LoseAnswer { till: n });
            }
            let mut frames = self.wires[n].clone();
            frames.dedup();
            for frame in frames {
                if self.left.losses > 0 {
                    steps.push(Step::Lose { till: n, frame });
                }
                if self.left.doubles > 0 {
                    steps.push(Step::Double { till: n, frame });
                }
            }
        }
    }

    fn work(&mut self, rules: Rules, step: &Step) {
        match *step {
            Step::Upload { till, answer_lost } => {
                let (seq, frames) = self.server.accept(rules, self.tills[till].op, self.next_tag);
                if !frames.is_empty() {
                    self.send(&frames);
                }
                if answer_lost {
                    self.left.lost_answers -= 1;
                } else {
                    self.tills[till].judged(rules, seq);
                }
            }
            Step::Arrive { till, frame } => {
                self.take_off_wire(till, frame);
                self.tills[till].frame_arrived(rules, frame);
            }
            Step::Subscribe { till } => self.tills[till].subscribe(rules),
            Step::Ask { till } => {
                let question = self.tills[till].question();
                self.tills[till].answer = Some(self.server.answer(rules, question));
                self.note_history();
            }
            Step::Answer { till } => {
                let answer = self.tills[till].answer.take().expect("one is on its way");
                self.tills[till].answer_arrived(rules, answer);
            }
            Step::Sell { .. }
            | Step::Reprice
            | Step::Lose { .. }
            | Step::Double { .. }
            | Step::LoseAnswer { .. }
            | Step::RestartBroker
            | Step::RestartTill { .. }
            | Step::Restore { .. } => self.event(rules, step),
        }
    }

    fn event(&mut self, rules: Rules, step: &Step) {
        match *step {
            Step::Sell { till } => {
                self.left.sales -= 1;
                self.tills[till].sell();
            }
            Step::Reprice => {
                self.left.prices -= 1;
                let frames = self.server.reprice(self.next_tag);
                self.send(&frames);
            }
            Step::Lose { till, frame } => {
                self.left.losses -= 1;
                self.take_off_wire(till, frame);
            }
            Step::Double { till, frame } => {
                self.left.doubles -= 1;
                self.tills[till].frame_arrived(rules, frame);
            }
            Step::LoseAnswer { till } => {
                self.left.lost_answers -= 1;
                self.tills[till].answer = None;
            }
            Step::RestartBroker => {
                self.left.broker_restarts -= 1;
                self.wires.iter_mut().for_each(Vec::clear);
                self.tills.iter_mut().for_each(|till| till.subscribed = false);
            }
            Step::RestartTill { till } => {
                self.left.till_restarts -= 1;
                self.wires[till].clear();
                self.tills[till].restart();
            }
            Step::Restore { commits } => {
                self.left.restores -= 1;
                self.restored = true;
                self.server.forget(commits);
                if !self.left.late_frames {
                    self.wires.iter_mut().for_each(Vec::clear);
                }
                self.tills.iter_mut().for_each(|till| till.doubt(rules));
            }
            Step::Upload { .. } | Step::Arrive { .. } | Step::Subscribe { .. } | Step::Ask { .. } | Step::Answer { .. } => {
                unreachable!("the system's own work")
            }
        }
    }

    /// Nothing is left to do until somebody sells something or something breaks.
    fn is_quiet(&self, rules: Rules) -> bool {
        let mut steps = Vec::new();
        self.progress(rules, &mut steps);
        steps.is_empty()
    }

    fn all_is_equal(&self) -> bool {
        let settled = |till: &Till| {
            let sold = till.sale != Sale::NotYet;
            let on_server = self.server.rows().receipts & bit(till.op) != 0;
            till.cursor == self.server.head() && till.rows == self.server.rows() && !till.overlay && sold == on_server
        };
        self.tills.iter().all(settled)
    }
}

/// The promises, by name.
pub(crate) const WHOLE: &str = "a till shows only what the server had at that cursor";
pub(crate) const FORWARD: &str = "a cursor never goes back within an epoch";
pub(crate) const ONCE: &str = "every operation counts once";
pub(crate) const OWN: &str = "a till shows its own sale once, before and after the server has it";
pub(crate) const EQUAL: &str = "when nothing is left to do, every till equals the server and every sale is on it";

pub(crate) const FINISHED: &str = "everything that may happen has happened, and nothing is left to do";
pub(crate) const WAITING: &str = "a frame waits for the one before it";

impl Model for Protocol {
    type State = Shop;
    type Action = Step;

    fn init_states(&self) -> Vec<Shop> {
        let server = Server::new();
        let tills: Vec<Till> = (0..self.bounds.tills).map(|op| Till::new(op, server.head())).collect();
        let history = BTreeMap::from([(server.head(), server.rows())]);
        let wires = vec![Vec::new(); tills.len()];
        vec![Shop { server, tills, wires, left: self.bounds, next_tag: 1, history, restored: false }]
    }

    fn actions(&self, shop: &Shop, steps: &mut Vec<Step>) {
        shop.progress(self.rules, steps);
        shop.events(steps);
    }

    fn next_state(&self, shop: &Shop, step: Step) -> Option<Shop> {
        let mut next = shop.clone();
        next.work(self.rules, &step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(WHOLE, |_, shop: &Shop| shop.tills.iter().all(|till| shop.history.get(&till.cursor) == Some(&till.rows))),
            Property::always(FORWARD, |_, shop: &Shop| shop.tills.iter().all(|till| !till.went_back)),
            Property::always(ONCE, |_, shop: &Shop| {
                let rows = shop.server.rows();
                i32::from(rows.stock) + i32::try_from(rows.receipts.count_ones()).expect("two sales") == i32::from(OPENING)
            }),
            // A restored server shows less than it did, until the operations that it lost are handed in again.
            Property::always(OWN, |_, shop: &Shop| {
                let fits = |till: &Till| (till.rows.receipts & bit(till.op) != 0) != till.overlay;
                shop.restored || shop.tills.iter().all(|till| till.sale == Sale::NotYet || fits(till))
            }),
            Property::always(EQUAL, |model: &Self, shop: &Shop| !shop.is_quiet(model.rules) || shop.all_is_equal()),
            // The model is no empty one.
            Property::sometimes(FINISHED, |model: &Self, shop: &Shop| shop.left == shop.left.used_up() && shop.is_quiet(model.rules)),
            Property::sometimes(WAITING, |_, shop: &Shop| shop.tills.iter().any(|till| !till.buffer.is_empty())),
        ]
    }
}
