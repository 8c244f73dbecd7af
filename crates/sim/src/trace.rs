//! The last events of a run, each in a line that a person can read.

use std::collections::VecDeque;

use mstore_engine::{Ask, CatchUpOutcome, Effect, Input};
use mstore_protocol::Cursor;

const LINES_MAX: usize = 40;
const LINE_CHARS_MAX: usize = 170;

/// A trace, if one is wanted: most runs keep every promise and need none.
#[derive(Debug)]
pub(crate) struct Trace(Option<VecDeque<String>>);

impl Trace {
    pub(crate) fn new(wanted: bool) -> Self {
        Self(wanted.then(VecDeque::new))
    }

    pub(crate) fn note(&mut self, now: u64, text: impl FnOnce() -> String) {
        let Some(lines) = &mut self.0 else { return };
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(format!("{now:>7} {}", text().chars().take(LINE_CHARS_MAX).collect::<String>()));
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.0.unwrap_or_default().into()
    }
}

/// A cursor as people compare it.
pub(crate) fn brief(cursor: Cursor) -> String {
    let (epoch, tag) = (cursor.epoch.to_string(), cursor.tag.to_string());
    format!("{}…:{}:{}…", &epoch[..4], cursor.seq, &tag[..4])
}

/// What a session is told.
pub(crate) fn told(input: &Input) -> String {
    match input {
        Input::FrameArrived(collection, frame) => {
            let cursor = Cursor { epoch: frame.epoch, seq: frame.seq, tag: frame.tag };
            format!("frame of {} {collection}, part {} of {}", brief(cursor), frame.part, frame.parts)
        }
        Input::HeadArrived(head) => format!("head {}, pull within {:?}", brief(head.cursor()), head.pull_within_ms),
        Input::CaughtUp(CatchUpOutcome::Complete { to, .. }) => format!("caught up to {}", brief(*to)),
        Input::HeadFetched(Ok(head)) => format!("head fetched {}", brief(head.cursor())),
        Input::Applied { cursor, .. } => format!("applied {}", brief(*cursor)),
        Input::Woken
        | Input::Subscribed
        | Input::ConnectionRefused(_)
        | Input::Disconnected
        | Input::NetworkChanged { .. }
        | Input::CaughtUp(_)
        | Input::HeadFetched(Err(_))
        | Input::ApplyFailed { .. }
        | Input::Compared(_)
        | Input::RowsFetched(_)
        | Input::Recounted(_)
        | Input::OperationCommitted(_)
        | Input::Requeued(_)
        | Input::Uploaded(_)
        | Input::SyncRequested
        | Input::ResyncRequested => format!("{input:?}"),
    }
}

/// What a session wants.
pub(crate) fn wanted(effect: &Effect) -> String {
    match effect {
        Effect::Apply(commit) => format!("Apply {}, which names {:?}", brief(commit.cursor), commit.ops),
        Effect::CatchUp(Ask { after, resume, reason, .. }) => {
            format!("CatchUp after {:?}, resume {resume:?}, {reason:?}", after.map(brief))
        }
        Effect::Show { to, snapshot, .. } => format!("Show up to {}, snapshot {snapshot}", brief(*to)),
        Effect::Adopt(cursor) => format!("Adopt {}", brief(*cursor)),
        Effect::Renumber { to } => format!("Renumber to {}", brief(*to)),
        Effect::Connect { .. } => "Connect".into(),
        Effect::Subscribe(_)
        | Effect::Disconnect
        | Effect::FetchHead
        | Effect::DropStaged
        | Effect::Recount
        | Effect::FetchSubDigests(_)
        | Effect::FetchRows { .. }
        | Effect::ReplaceRanges { .. }
        | Effect::Upload(_)
        | Effect::Settle(_)
        | Effect::Requeue => format!("{effect:?}"),
    }
}
