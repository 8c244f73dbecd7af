//! What is going to happen in a run: drawn from the seed before it begins, so that a failing run can be made smaller by leaving things out.

use std::fmt;

use mstore_engine::stock::BelowZero;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    shop::{BRANCHES, COUNTED, PRODUCTS, UNKNOWN},
    weather::Weather,
};

/// Devices of a run; the last belongs to the other branch.
pub(crate) const DEVICES: usize = 3;

/// One change of a writer's transaction.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    PutProduct(&'static str),
    DropProduct(&'static str),
    /// Stock of a product, in or out.
    Move {
        branch: usize,
        item: &'static str,
        milli: i64,
    },
    /// From the shelf to the cellar, or back.
    Carry {
        branch: usize,
        milli: i64,
    },
    /// An import that is too large for frames.
    Bulk {
        edition: u32,
    },
    /// The oldest transactions leave their window.
    Expire,
}

/// What a cashier does.
#[derive(Debug, Clone)]
pub(crate) enum What {
    Sell {
        product: &'static str,
        milli: i64,
    },
    /// All that the screen shows; two tills may show the same last item.
    SellOut {
        product: &'static str,
    },
    TakeBack {
        product: &'static str,
        milli: i64,
    },
    Receive {
        product: &'static str,
        milli: i64,
    },
    Adjust {
        product: &'static str,
        milli: i64,
    },
    Count {
        product: &'static str,
        milli: i64,
    },
    Transfer {
        product: &'static str,
        milli: i64,
    },
}

/// Where a server dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// Between two transactions.
    Now,
    /// When its next transaction is durable: nobody has been answered, nothing published.
    AfterCommit,
    /// When the broker has taken its next message: the acknowledgement is not written down.
    AfterHandOver,
}

/// What people do.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    /// One transaction through the server.
    Write(Vec<Edit>),
    /// One transaction of another program.
    ByHand(Vec<Edit>),
    Operate {
        device: usize,
        what: What,
    },
    Sync {
        device: usize,
    },
    Resync {
        device: usize,
    },
    /// Upkeep: deletions are forgotten.
    RaiseFloor,
}

/// What breaks for everybody.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    RestartBroker { ms: u64 },
    KillServer { death: Death, ms: u64 },
    FillServerDisk { ms: u64 },
    JumpServerClock { by_ms: i64 },
    BackUpServer,
    RestoreServer { ms: u64 },
}

/// What breaks for one device.
#[derive(Debug, Clone)]
pub(crate) enum TillFault {
    CutMqtt {
        ms: u64,
    },
    CutHttp {
        ms: u64,
    },
    /// The broker drops what does not fit into its queue for this device.
    FullQueue {
        ms: u64,
    },
    /// It dies after this many effects more.
    Kill {
        effects: u32,
        ms: u64,
    },
    FillDisk {
        ms: u64,
    },
    JumpClock {
        by_ms: i64,
    },
    RotateToken,
    Revoke,
    /// To the other branch.
    Move,
    /// What was not synced is gone.
    CutPower {
        ms: u64,
    },
    BackUp,
    Restore {
        ms: u64,
    },
    /// A row is altered on its disk.
    Rot {
        n: usize,
    },
}

/// What happens.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Deed(Deed),
    Fault(Fault),
    Till(usize, TillFault),
}

impl From<Deed> for Act {
    fn from(deed: Deed) -> Self {
        Self::Deed(deed)
    }
}

impl From<Fault> for Act {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// One thing and when.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) at_ms: u64,
    pub(crate) act: Act,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deed(deed) => write!(f, "{deed:?}"),
            Self::Fault(fault) => write!(f, "{fault:?}"),
            Self::Till(device, fault) => write!(f, "device {device}: {fault:?}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7} {}", self.at_ms, self.act)
    }
}

/// Everything that is decided before a run begins.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) weather: Weather,
    pub(crate) policy: BelowZero,
    /// When the trouble ends.
    pub(crate) active_ms: u64,
    /// By time.
    pub(crate) steps: Vec<Step>,
}

const PEOPLE_STEPS: std::ops::Range<usize> = 35..60;
/// A server put back to its backup was away for at least this long; nobody is faster.
pub(crate) const RESTORE_MS: u64 = 31_000;

struct Draft {
    dice: StdRng,
    span_ms: u64,
    steps: Vec<Step>,
}

impl Plan {
    pub(crate) fn new(seed: u64, weather: Weather) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let active_ms = if weather.disasters { 150_000 } else { 20_000 };
        let policy = [BelowZero::Allow, BelowZero::Warn, BelowZero::Block][dice.random_range(0..3)];
        let mut draft = Draft { dice, span_ms: active_ms, steps: Vec::new() };
        let count = draft.dice.random_range(PEOPLE_STEPS);
        for _ in 0..count {
            draft.people();
        }
        for _ in 0..weather.accidents {
            if weather.disasters && draft.dice.random_bool(0.4) { draft.disaster() } else { draft.accident() }
        }
        let mut steps = draft.steps;
        steps.sort_by_key(|step| step.at_ms);
        Self { seed, weather, policy, active_ms, steps }
    }
}

impl Draft {
    fn when(&mut self) -> u64 {
        self.dice.random_range(100..self.span_ms)
    }

    fn add(&mut self, at_ms: u64, act: impl Into<Act>) {
        if at_ms < self.span_ms {
            self.steps.push(Step { at_ms, act: act.into() });
        }
    }

    fn device(&mut self) -> usize {
        self.dice.random_range(0..DEVICES)
    }

    fn product(&mut self) -> &'static str {
        PRODUCTS[self.dice.random_range(0..PRODUCTS.len())]
    }

    fn milli(&mut self) -> i64 {
        [250, 500, 1_000, 1_000, 2_000, 3_000][self.dice.random_range(0..6)]
    }

    /// One thing that people do.
    fn people(&mut self) {
        let at = self.when();
        let act = match self.dice.random_range(0..100) {
            0..32 => Deed::Write(self.edits()),
            32..44 => Deed::ByHand(self.edits()),
            44 => Deed::Write(vec![Edit::Bulk { edition: self.dice.random() }]),
            45..48 => Deed::Write(vec![Edit::Expire]),
            48..92 => Deed::Operate { device: self.device(), what: self.what() },
            92..94 => return self.last_item(at),
            94..97 => Deed::Sync { device: self.device() },
            _ => Deed::Resync { device: self.device() },
        };
        self.add(at, act);
    }

    fn edits(&mut self) -> Vec<Edit> {
        let count = self.dice.random_range(1..4);
        let mut edits: Vec<Edit> = (0..count).map(|_| self.edit()).collect();
        if self.dice.random_bool(0.5) {
            let (branch, milli) = (self.dice.random_range(0..BRANCHES), self.dice.random_range(-900..900));
            edits.push(Edit::Carry { branch, milli });
        }
        edits
    }

    fn edit(&mut self) -> Edit {
        let product = self.product();
        match self.dice.random_range(0..10) {
            0..3 => Edit::PutProduct(product),
            3 if product != COUNTED => Edit::DropProduct(product),
            _ => {
                let item = if product == COUNTED { "tea" } else { product };
                Edit::Move { branch: self.dice.random_range(0..BRANCHES), item, milli: self.dice.random_range(-3_000..5_000) }
            }
        }
    }

    fn what(&mut self) -> What {
        let (product, milli) = (self.product(), self.milli());
        match self.dice.random_range(0..100) {
            0..58 => What::Sell { product, milli },
            58..62 => What::Sell { product: UNKNOWN, milli },
            62..70 => What::TakeBack { product, milli },
            70..77 => What::Receive { product, milli },
            77..86 => What::Adjust { product, milli: -milli },
            86..92 => What::Count { product: COUNTED, milli: self.dice.random_range(0..9) * 1_000 },
            _ => What::Transfer { product, milli },
        }
    }

    /// Two tills sell the last item at the same time.
    fn last_item(&mut self, at: u64) {
        let product = self.product();
        for device in 0..2 {
            self.add(at + device as u64, Deed::Operate { device, what: What::SellOut { product } });
        }
    }

    fn accident(&mut self) {
        let (at, device, ms) = (self.when(), self.device(), self.dice.random_range(50..5_000));
        let act = match self.dice.random_range(0..100) {
            0..9 => Act::Till(device, TillFault::CutMqtt { ms }),
            9..18 => Act::Till(device, TillFault::CutHttp { ms }),
            18..25 => Fault::RestartBroker { ms }.into(),
            25..30 => Act::Till(device, TillFault::FullQueue { ms }),
            30..44 => Fault::KillServer { death: self.death(), ms }.into(),
            44..48 => Fault::FillServerDisk { ms }.into(),
            48..64 => Act::Till(device, TillFault::Kill { effects: self.dice.random_range(0..12), ms }),
            64..69 => Act::Till(device, TillFault::FillDisk { ms }),
            69..74 => Act::Till(device, TillFault::JumpClock { by_ms: self.dice.random_range(-7_200_000..7_200_000) }),
            74..76 => Fault::JumpServerClock { by_ms: self.dice.random_range(-3_000..3_000) }.into(),
            76..80 => Act::Till(device, TillFault::RotateToken),
            80..83 => Act::Till(device, TillFault::Revoke),
            83..87 => Act::Till(device, TillFault::Move),
            87..94 => return self.long_absence(at, device),
            _ => return self.stocktake(at, device),
        };
        self.add(at, act);
    }

    fn death(&mut self) -> Death {
        [Death::Now, Death::AfterCommit, Death::AfterCommit, Death::AfterHandOver][self.dice.random_range(0..4)]
    }

    /// Deletions are forgotten while a device is away.
    fn long_absence(&mut self, at: u64, device: usize) {
        self.add(at, Act::Till(device, TillFault::CutHttp { ms: 6_000 }));
        self.add(at, Act::Till(device, TillFault::CutMqtt { ms: 6_000 }));
        let product = self.product();
        let gone = if product == COUNTED { "tea" } else { product };
        self.add(at + 500, Deed::Write(vec![Edit::DropProduct(gone)]));
        for n in 1..5 {
            let milli = self.dice.random_range(100..900);
            self.add(at + 500 + n * 300, Deed::Write(vec![Edit::Carry { branch: 0, milli }, Edit::Carry { branch: 1, milli }]));
        }
        self.add(at + 3_000, Deed::RaiseFloor);
    }

    /// Somebody counts while sales of the same goods wait on a till without a network.
    fn stocktake(&mut self, at: u64, device: usize) {
        let other = (device + 1) % 2;
        self.add(at, Act::Till(device, TillFault::CutHttp { ms: 7_000 }));
        self.add(at + 200, Deed::Operate { device, what: What::Sell { product: COUNTED, milli: 1_000 } });
        self.add(at + 3_500, Deed::Operate { device: other, what: What::Count { product: COUNTED, milli: 3_000 } });
        self.add(at + 6_500, Deed::Operate { device, what: What::Sell { product: COUNTED, milli: 500 } });
    }

    fn disaster(&mut self) {
        let (at, device, ms) = (self.when(), self.device(), self.dice.random_range(50..5_000));
        match self.dice.random_range(0..5) {
            0 => {
                self.add(at, Fault::BackUpServer);
                let away = RESTORE_MS + self.dice.random_range(0..3_000);
                let later = at + self.dice.random_range(500..30_000);
                // The end of all trouble must not shorten it.
                if later + away < self.span_ms {
                    self.add(later, Fault::RestoreServer { ms: away });
                }
            }
            1 | 2 => self.add(at, Act::Till(device, TillFault::CutPower { ms })),
            3 => {
                self.add(at, Act::Till(device, TillFault::BackUp));
                let later = at + self.dice.random_range(500..30_000);
                self.add(later, Act::Till(device, TillFault::Restore { ms }));
            }
            _ => {
                let n = self.dice.random_range(0..100);
                self.add(at, Act::Till(device, TillFault::Rot { n }));
            }
        }
    }
}
