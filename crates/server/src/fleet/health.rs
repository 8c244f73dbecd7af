//! How one device is, from its last report and the time since.

use mstore_protocol::{DeviceReport, DeviceState, Epoch, Seq, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

/// Devices report every minute: this long without one is silence.
const SILENT_AFTER_MS: i64 = 150_000;

/// From good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Health {
    /// Live, with everything.
    Fresh,
    /// It fetches what it misses.
    CatchingUp,
    /// MQTT is down; it asks over HTTP.
    Polling,
    /// Enrolled, and has not reported yet.
    NeverReported,
    /// It calls itself live and misses what the branch had before it reported.
    Behind,
    /// No report for over 150 s: switched off, or cut off.
    Silent,
    /// The server refuses it.
    Blocked,
}

/// A report as it was received.
pub(crate) struct Seen<'a> {
    /// What it says.
    pub(crate) report: &'a DeviceReport,
    /// When it came, by our clock.
    pub(crate) at: Timestamp,
    /// What the branch had a good while before it came; none if nobody looked.
    pub(crate) branch_had: Option<(Epoch, Seq)>,
}

impl Health {
    /// Of a device that reported this last.
    pub(crate) fn of(seen: Option<Seen<'_>>, now: Timestamp) -> Self {
        let Some(Seen { report, at, branch_had }) = seen else { return Self::NeverReported };
        let lacks = |(epoch, seq): (Epoch, Seq)| report.cursor.is_none_or(|cursor| cursor.epoch != epoch || cursor.seq < seq);
        match report.state {
            // It can say so only because something else still lets it through.
            DeviceState::Blocked(_) => Self::Blocked,
            _ if now.as_ms() - at.as_ms() > SILENT_AFTER_MS => Self::Silent,
            DeviceState::Live if branch_had.is_some_and(lacks) => Self::Behind,
            DeviceState::Live => Self::Fresh,
            DeviceState::Polling => Self::Polling,
            DeviceState::Starting | DeviceState::CatchingUp | DeviceState::NeedsSnapshot | DeviceState::Offline => Self::CatchingUp,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mstore_protocol::{Code, Cursor, Tag};

    use super::*;

    const NOW_MS: i64 = 1_000_000;

    fn health(state: DeviceState, seq: Seq, age_s: i64, branch_had: Option<Seq>) -> Health {
        let text = r#"{"state":"live","cursor":null,"queue_depth":0,"oldest_pending_s":0,"device_time":"2026-11-22T06:41:00.123Z"}"#;
        let epoch = Epoch::from_bits(1);
        let cursor = Some(Cursor { epoch, seq, tag: Tag::from_bits(0) });
        let report = DeviceReport { state, cursor, ..serde_json::from_str(text).unwrap() };
        let at = Timestamp::from_ms(NOW_MS - age_s * 1_000);
        Health::of(Some(Seen { report: &report, at, branch_had: branch_had.map(|seq| (epoch, seq)) }), Timestamp::from_ms(NOW_MS))
    }

    #[test]
    fn a_live_device_is_fresh_only_with_what_the_branch_had() {
        assert_eq!(health(DeviceState::Live, 7, 30, Some(7)), Health::Fresh);
        assert_eq!(health(DeviceState::Live, 7, 30, None), Health::Fresh, "nobody knows better");
        assert_eq!(health(DeviceState::Live, 6, 30, Some(7)), Health::Behind);
        assert_eq!(health(DeviceState::CatchingUp, 6, 30, Some(7)), Health::CatchingUp, "it says so");
    }

    #[test]
    fn silence_and_refusal_outweigh_what_was_said() {
        assert_eq!(health(DeviceState::Live, 7, 151, None), Health::Silent);
        assert_eq!(health(DeviceState::Polling, 7, 150, None), Health::Polling);
        assert_eq!(health(DeviceState::Blocked(Code::DeviceRevoked), 7, 500, None), Health::Blocked);
        assert_eq!(Health::of(None, Timestamp::from_ms(NOW_MS)), Health::NeverReported);
    }
}
