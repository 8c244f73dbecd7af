//! The protocol in small, in every way that it can run: a model checker goes through all states and looks for one that breaks a promise.
//!
//! Read `rules.rs` for what the protocol consists of, `till.rs` and `server.rs` for how it works, `shop.rs` for what can happen to it and
//! what is promised. `docs/src/why-it-converges.md` is the argument in words. The simulator runs the real engine through long random runs;
//! this runs a model of it through all short ones.

mod ending;
mod rules;
mod server;
mod shop;
mod till;

use rules::{Rule, Rules};
use shop::{Bounds, EQUAL, FINISHED, FORWARD, ONCE, OWN, Protocol, WAITING, WHOLE};
use stateright::{Checker as _, HasDiscoveries, Model as _};

const NOTHING: Bounds = Bounds {
    tills: 2,
    sales: 0,
    prices: 0,
    losses: 0,
    doubles: 0,
    broker_restarts: 0,
    till_restarts: 0,
    lost_answers: 0,
    restores: 0,
    late_frames: false,
};
/// Frames are lost, come twice, come in any order.
const BAD_BROKER: Bounds = Bounds { prices: 2, losses: 1, doubles: 1, ..NOTHING };
/// A commit of two frames beside one of one.
const TWO_PARTS: Bounds = Bounds { sales: 1, prices: 1, losses: 1, ..NOTHING };
const BROKER_RESTARTED: Bounds = Bounds { prices: 2, broker_restarts: 1, ..NOTHING };
/// The answer of an upload or of `/changes` is lost.
const ANSWER_LOST: Bounds = Bounds { sales: 1, prices: 1, lost_answers: 1, ..NOTHING };
const TILL_RESTARTED: Bounds = Bounds { tills: 1, sales: 1, prices: 2, till_restarts: 1, losses: 1, ..NOTHING };
/// The server is put back to a backup.
const RESTORED: Bounds = Bounds { tills: 1, sales: 1, prices: 2, restores: 1, ..NOTHING };
const RESTORED_BETWEEN_TILLS: Bounds = Bounds { prices: 2, restores: 1, ..NOTHING };
const RESTORED_AND_LOSING: Bounds = Bounds { tills: 1, sales: 1, prices: 1, losses: 1, lost_answers: 1, restores: 1, ..NOTHING };
/// The same with frames that come after the restore although they were sent before it.
const LATE_FRAMES: Bounds = Bounds { tills: 1, sales: 1, prices: 1, restores: 1, late_frames: true, ..NOTHING };

const WORLDS: &[(&str, Bounds)] = &[
    ("bad broker", BAD_BROKER),
    ("two parts", TWO_PARTS),
    ("broker restarted", BROKER_RESTARTED),
    ("answer lost", ANSWER_LOST),
    ("till restarted", TILL_RESTARTED),
    ("server restored", RESTORED),
    ("server restored between tills", RESTORED_BETWEEN_TILLS),
    ("server restored, messages lost", RESTORED_AND_LOSING),
    ("late frames", LATE_FRAMES),
];

/// What a run that goes in circles breaks.
const ENDS: &str = "every run ends";

/// Each rule, a world in which it is needed, and the promise that is broken without it. Where the digest would mend the damage at once, it
/// is taken out too.
const CONTROLS: &[(&[Rule], Bounds, &str)] = &[
    (&[Rule::DedupeById], ANSWER_LOST, ONCE),
    (&[Rule::NoGap], TWO_PARTS, WHOLE),
    (&[Rule::AllParts], TWO_PARTS, WHOLE),
    (&[Rule::Poll], BAD_BROKER, EQUAL),
    (&[Rule::NoStaleAnswer], BAD_BROKER, FORWARD),
    (&[Rule::OverlayUntilShown], TWO_PARTS, OWN),
    (&[Rule::AnswerNamesOps], ANSWER_LOST, OWN),
    (&[Rule::Tags, Rule::Digest], RESTORED, WHOLE),
    (&[Rule::NewEpoch], RESTORED, ENDS),
    (&[Rule::Confirm], RESTORED, WHOLE),
    (&[Rule::ForgetOlderFrames], RESTORED, WHOLE),
    (&[Rule::HandInAgain], RESTORED, EQUAL),
    (&[Rule::HeadPassesVerdict], RESTORED, EQUAL),
    (&[Rule::Digest], LATE_FRAMES, EQUAL),
];

#[test]
fn every_promise_holds_in_every_state() {
    for (name, bounds) in WORLDS {
        let protocol = Protocol { rules: Rules::ALL, bounds: *bounds };
        let checker = protocol.checker().spawn_bfs().join();
        let mut broken: Vec<&str> =
            [WHOLE, FORWARD, ONCE, OWN, EQUAL].into_iter().filter(|promise| checker.discovery(promise).is_some()).collect();
        if bounds.late_frames {
            // The one weakness: a frame that outlives a restore may be shown on rows that are not its own, until the digest tells.
            broken.retain(|promise| *promise != WHOLE);
        }
        for promise in &broken {
            let steps = checker.discovery(promise).map_or_else(Vec::new, |path| path.into_actions());
            println!("{promise}:\n{}", steps.iter().map(|step| format!("  {step:?}\n")).collect::<String>());
        }
        assert!(broken.is_empty(), "{name}: {broken:?}");
        for reached in [FINISHED, WAITING] {
            assert!(checker.discovery(reached).is_some(), "{name} is an empty world: never {reached:?}");
        }
        println!("{name}: {} states, every promise holds", checker.unique_state_count());
    }
}

#[test]
fn every_run_ends() {
    for (name, bounds) in WORLDS {
        match ending::ends(&Protocol { rules: Rules::ALL, bounds: *bounds }) {
            Ok(ends) => println!("{name}: every run ends, in one of {ends} states"),
            Err(circle) => panic!("{name} goes in circles: {circle:#?}"),
        }
    }
}

#[test]
fn no_rule_can_be_left_out() {
    for (rules, bounds, promise) in CONTROLS {
        let protocol = Protocol { rules: Rules::without(rules), bounds: *bounds };
        let steps = if *promise == ENDS { ending::ends(&protocol).err() } else { counterexample(protocol, promise) };
        let Some(steps) = steps else { panic!("without {rules:?} it still holds that {promise}: is it a rule?") };
        println!("without {rules:?} it does not hold that {promise}: {} steps", steps.len());
        steps.iter().for_each(|step| println!("    {step:?}"));
    }
}

fn counterexample(protocol: Protocol, promise: &'static str) -> Option<Vec<shop::Step>> {
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyOf([promise].into())).spawn_bfs().join();
    checker.discovery(promise).map(|path| path.into_actions())
}
