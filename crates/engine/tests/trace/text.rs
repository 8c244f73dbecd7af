//! The spelling of a trace: every input, effect and status as one JSON object, its fields named as in the sources.

use mstore_engine::{
    ApplyFault, Ask, CatchUpOutcome, Comparison, Counters, Effect, Fault, Input, Known, QueuedOperation, Status, UploadOutcome,
};
use mstore_protocol::{Collection, Cursor, DeviceState, Verdict};
use serde_json::{Value, json};

fn cursor(at: Option<Cursor>) -> Value {
    at.map_or(Value::Null, |cursor| Value::from(cursor.to_string()))
}

fn names(collections: &[Collection]) -> Vec<&str> {
    collections.iter().map(Collection::as_str).collect()
}

fn queued(operations: &[QueuedOperation]) -> Value {
    operations.iter().map(|held| json!({ "id": held.id.to_string(), "at": held.at.as_ms() })).collect()
}

fn fault(fault: Fault) -> Value {
    json!({ "retry_after_ms": fault.retry_after_ms, "reached": fault.reached })
}

pub(crate) fn known(seed: u64, known: &Known) -> Value {
    let resume = known.resume.as_ref().map(|held| json!({ "position": held.position, "snapshot": held.snapshot }));
    json!({ "seed": seed, "known": { "cursor": cursor(known.cursor), "resume": resume, "queue": queued(&known.queue) } })
}

pub(crate) fn input(input: &Input) -> Value {
    match input {
        Input::Woken => json!({ "is": "woken" }),
        Input::Subscribed => json!({ "is": "subscribed" }),
        Input::ConnectionRefused(code) => json!({ "is": "connection_refused", "code": code }),
        Input::Disconnected => json!({ "is": "disconnected" }),
        Input::NetworkChanged { available } => json!({ "is": "network_changed", "available": available }),
        Input::FrameArrived(collection, frame) => json!({ "is": "frame_arrived", "collection": collection, "frame": frame }),
        Input::HeadArrived(head) => json!({ "is": "head_arrived", "head": head }),
        Input::CaughtUp(outcome) => json!({ "is": "caught_up", "outcome": caught_up(outcome) }),
        Input::HeadFetched(Ok(head)) => json!({ "is": "head_fetched", "head": head }),
        Input::HeadFetched(Err(error)) => json!({ "is": "head_fetched", "fault": fault(*error) }),
        Input::Applied { cursor, digests } => json!({ "is": "applied", "cursor": cursor.to_string(), "digests": digests }),
        Input::ApplyFailed { cursor: at, fault } => {
            let fault = match fault {
                ApplyFault::BaseMissing => "base_missing",
                ApplyFault::Storage => "storage",
            };
            json!({ "is": "apply_failed", "cursor": cursor(*at), "fault": fault })
        }
        Input::Compared(Ok(Comparison { at, ranges, rows })) => {
            json!({ "is": "compared", "at": at.to_string(), "ranges": ranges, "rows": rows })
        }
        Input::Compared(Err(error)) => json!({ "is": "compared", "fault": fault(*error) }),
        Input::RowsFetched(Ok(at)) => json!({ "is": "rows_fetched", "at": at.to_string() }),
        Input::RowsFetched(Err(error)) => json!({ "is": "rows_fetched", "fault": fault(*error) }),
        Input::Recounted(None) => json!({ "is": "recounted" }),
        Input::Recounted(Some((at, altered))) => json!({ "is": "recounted", "cursor": at.to_string(), "altered": altered }),
        Input::OperationCommitted(operation) => json!({ "is": "operation_committed", "operations": queued(&[*operation]) }),
        Input::Requeued(operations) => json!({ "is": "requeued", "operations": queued(operations) }),
        Input::Uploaded(outcome) => json!({ "is": "uploaded", "outcome": uploaded(outcome) }),
        Input::SyncRequested => json!({ "is": "sync_requested" }),
        Input::ResyncRequested => json!({ "is": "resync_requested" }),
    }
}

fn caught_up(outcome: &CatchUpOutcome) -> Value {
    match outcome {
        CatchUpOutcome::Complete { to, digests } => json!({ "is": "complete", "to": to.to_string(), "digests": digests }),
        CatchUpOutcome::Unchanged => json!({ "is": "unchanged" }),
        CatchUpOutcome::Broken { resume } => json!({ "is": "broken", "resume": resume }),
        CatchUpOutcome::SnapshotRequired => json!({ "is": "snapshot_required" }),
        CatchUpOutcome::Refused(code) => json!({ "is": "refused", "code": code }),
        CatchUpOutcome::Failed(error) => json!({ "is": "failed", "fault": fault(*error) }),
    }
}

fn uploaded(outcome: &UploadOutcome) -> Value {
    match outcome {
        UploadOutcome::Answered(verdicts) => json!({ "is": "answered", "verdicts": verdicts }),
        UploadOutcome::Rejected(code) => json!({ "is": "rejected", "code": code }),
        UploadOutcome::Refused(code) => json!({ "is": "refused", "code": code }),
        UploadOutcome::Failed(error) => json!({ "is": "failed", "fault": fault(*error) }),
    }
}

pub(crate) fn effect(effect: &Effect) -> Value {
    match effect {
        Effect::Connect { collections } => json!({ "do": "connect", "collections": names(collections) }),
        Effect::Subscribe(collection) => json!({ "do": "subscribe", "collection": collection }),
        Effect::Disconnect => json!({ "do": "disconnect" }),
        Effect::CatchUp(asked) => json!({ "do": "catch_up", "ask": ask(asked) }),
        Effect::FetchHead => json!({ "do": "fetch_head" }),
        Effect::Apply(commit) => {
            let parts: Vec<Value> = commit.frames.iter().map(|(collection, frame)| json!([collection, frame.part])).collect();
            let ops: Vec<String> = commit.ops.iter().map(ToString::to_string).collect();
            json!({ "do": "apply", "cursor": commit.cursor.to_string(), "ops": ops, "parts": parts })
        }
        Effect::Show { to, snapshot, is_fallback } => {
            json!({ "do": "show", "to": to.to_string(), "snapshot": snapshot, "is_fallback": is_fallback })
        }
        Effect::DropStaged => json!({ "do": "drop_staged" }),
        Effect::Adopt(to) => json!({ "do": "adopt", "to": to.to_string() }),
        Effect::Renumber { to } => json!({ "do": "renumber", "to": to.to_string() }),
        Effect::Recount => json!({ "do": "recount" }),
        Effect::FetchSubDigests(collection) => json!({ "do": "fetch_sub_digests", "collection": collection }),
        Effect::FetchRows { collection, ranges } => json!({ "do": "fetch_rows", "collection": collection, "ranges": ranges }),
        Effect::ReplaceRanges { collection, ranges } => json!({ "do": "replace_ranges", "collection": collection, "ranges": ranges }),
        Effect::Upload(ids) => json!({ "do": "upload", "ids": ids.iter().map(ToString::to_string).collect::<Vec<_>>() }),
        Effect::Settle(verdicts) => json!({ "do": "settle", "verdicts": verdicts.iter().map(verdict).collect::<Vec<_>>() }),
        Effect::Requeue => json!({ "do": "requeue" }),
    }
}

/// Without the detail, which is for people.
fn verdict(verdict: &Verdict) -> Value {
    json!({ "id": verdict.id, "status": verdict.status, "seq": verdict.seq, "code": verdict.code })
}

fn ask(ask: &Ask) -> Value {
    json!({
        "after": cursor(ask.after),
        "resume": ask.resume,
        "keep_staged": ask.keep_staged,
        "over_ranges": ask.over_ranges,
        "reason": ask.reason.as_str(),
        "is_fallback": ask.is_fallback,
    })
}

pub(crate) fn status(status: &Status, deadline: Option<u64>) -> Value {
    let state = match status.state {
        DeviceState::Blocked(code) => format!("blocked:{code}"),
        state @ (DeviceState::Starting
        | DeviceState::CatchingUp
        | DeviceState::Live
        | DeviceState::Polling
        | DeviceState::Offline
        | DeviceState::NeedsSnapshot) => state.as_str().to_owned(),
    };
    json!({
        "state": state,
        "cursor": cursor(status.cursor),
        "confirmed_at": status.confirmed_at,
        "queue_depth": status.queue_depth,
        "oldest_pending": status.oldest_pending.map(mstore_protocol::Timestamp::as_ms),
        "upload_refused": status.upload_refused,
        "deadline": deadline,
    })
}

pub(crate) fn counters(counters: Counters) -> Value {
    json!({ "counters": {
        "frames": counters.frames,
        "frames_dropped": counters.frames_dropped,
        "gaps": counters.gaps,
        "catch_ups": counters.catch_ups,
        "ended": counters.ended,
        "snapshots": counters.snapshots,
        "polls": counters.polls,
        "not_modified": counters.not_modified,
        "polls_skipped": counters.polls_skipped,
        "digest_mismatches": counters.digest_mismatches,
        "ranges_repaired": counters.ranges_repaired,
        "disconnects": counters.disconnects,
        "uploads": counters.uploads,
        "renumberings": counters.renumberings,
    } })
}
