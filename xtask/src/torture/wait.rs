//! Waiting for something that another process does: looked at often, with a deadline that nothing healthy comes near.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

const DEADLINE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `done` holds.
pub(super) fn until(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        if Instant::now() > deadline {
            bail!("no {what} within {DEADLINE:?}");
        }
        pause(LOOK_EVERY);
    }
    Ok(())
}

/// Lets time pass.
pub(super) fn pause(time: Duration) {
    let (_nobody_speaks, silence) = sync_channel::<()>(0);
    pause_unless(time, &silence);
}

/// Lets time pass unless somebody speaks or is gone; whether it passed.
pub(super) fn pause_unless(time: Duration, stop: &Receiver<()>) -> bool {
    matches!(stop.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}
