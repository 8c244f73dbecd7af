//! Places at which a test can kill the process, to prove that nothing answered is lost and nothing is done twice. Debug builds only.
//!
//! `MSTORE_TEST_FAILPOINT=name` arms one place; the process aborts there as soon as the file named by `MSTORE_TEST_FAILPOINT_FILE` exists, so that a
//! test can prepare in peace. In release builds nothing of it is compiled.

/// Every place, in the order in which a write passes them; a test kills the server at each.
pub const ALL: &[&str] = &[
    "begin",
    "operation_written",
    "job_done",
    "mirror_written",
    "head_written",
    "outbox_written",
    "marks_deleted",
    "before_commit",
    "after_commit",
    "before_answer",
    "frame_published",
    "frame_acknowledged",
    "outbox_deleted",
    "claim_made",
    "claim_redeemed",
    "token_rotated",
    "token_retired",
    "report_kept",
    "upkeep_done",
    "sweep_mended",
];

/// Places that only a server with a webhook passes.
pub const OF_WEBHOOK: &[&str] = &["webhook_answered"];

/// Dies here if this is the armed place.
#[cfg(debug_assertions)]
pub fn point(name: &'static str) {
    use std::{path::PathBuf, sync::OnceLock};
    static ARMED: OnceLock<Option<(String, PathBuf)>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let place = std::env::var("MSTORE_TEST_FAILPOINT").ok()?;
        Some((place, std::env::var_os("MSTORE_TEST_FAILPOINT_FILE")?.into()))
    });
    debug_assert!(ALL.iter().chain(OF_WEBHOOK).any(|known| *known == name), "{name} is not in the list of failpoints");
    if armed.as_ref().is_some_and(|(place, file)| place == name && file.exists()) {
        std::process::abort();
    }
}

/// Nothing: this is a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &'static str) {}
