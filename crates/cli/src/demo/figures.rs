//! What a demo measured, as the one JSON object and as a page for people.

use serde::Serialize;

/// The result of a demo.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    /// Every till equals the server by digest and row by row.
    pub(crate) converged: bool,
    pub(crate) devices: usize,
    pub(crate) branches: usize,
    /// Rows of all branches on the server at the end.
    pub(crate) rows: u64,
    /// Commits of all branches.
    pub(crate) commits: u64,
    /// Frames that the broker took.
    pub(crate) frames: u64,
    pub(crate) operations: Operations,
    /// Server's commit → till's own commit, of changes that came by MQTT while the till had a network.
    pub(crate) latency_ms: Latency,
    pub(crate) publish: Publish,
    /// Share of changes that came by HTTP although the till was online (first snapshots and returns from offline do not count).
    pub(crate) fallback_rate: f64,
    /// Share of the online seconds in which a till was less than 1 s behind its head.
    pub(crate) freshness: f64,
    pub(crate) bytes: Bytes,
    pub(crate) duration_s: f64,
    /// What did not hold, for people; empty when all is well.
    pub(crate) faults: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Operations {
    /// Committed on tills.
    pub(crate) sent: u64,
    /// On the server once, with their effect.
    pub(crate) accepted: u64,
    /// Uploads of an operation that the server had already (resent after a lost answer).
    pub(crate) duplicates: u64,
    /// Refused with a code, visible in a dead-letter list.
    pub(crate) rejected: u64,
    /// Neither on the server nor in a dead-letter list.
    pub(crate) lost: u64,
    /// With more than one effect on the server.
    pub(crate) doubled: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Publish {
    pub(crate) attempted: u64,
    pub(crate) acknowledged: u64,
    pub(crate) success_rate: f64,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Bytes {
    /// MQTT payload bytes per changed row, envelope included, median over the frames.
    pub(crate) per_update_p50: u64,
    /// MQTT payload bytes that tills received.
    pub(crate) mqtt: u64,
    /// HTTP body bytes that tills sent and received.
    pub(crate) http: u64,
    /// A full snapshot for every till at every 300 s of shop time, compressed as ours is.
    pub(crate) full_polling_would_be: u64,
}

impl Publish {
    /// With the rate that follows.
    pub(crate) fn of(attempted: u64, acknowledged: u64) -> Self {
        let success_rate = if attempted == 0 { 1.0 } else { acknowledged as f64 / attempted as f64 };
        Self { attempted, acknowledged, success_rate }
    }

    /// Both counts together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self::of(self.attempted + other.attempted, self.acknowledged + other.acknowledged)
    }
}

impl Figures {
    /// All promises held.
    pub(crate) fn is_good(&self) -> bool {
        self.converged && self.operations.lost == 0 && self.operations.doubled == 0 && self.faults.is_empty()
    }

    /// The verdict for people.
    pub(crate) fn page(&self) -> String {
        let yes = |good: bool| if good { "yes" } else { "NO" };
        let ops = &self.operations;
        let saved = self.bytes.full_polling_would_be as f64 / (self.bytes.mqtt + self.bytes.http).max(1) as f64;
        let mut out = format!(
            "\nVerdict after {:.0} s: {} tills in {} branches, {} rows, {} commits, {} frames\n\
             \n  every till equals the server, by digest and row by row   {}\
             \n  no receipt lost                                          {}  ({} sent, {} accepted, {} rejected and listed, {} lost)\
             \n  no receipt doubled                                       {}  ({} sent again after a lost answer, each counted once)\
             \n\n  commit to till   p50 {:.2} ms   p99 {:.2} ms   max {:.0} ms\
             \n  published        {} of {} ({:.4} %)\
             \n  fallback         {:.3} % of changes came by HTTP although the till was online   (goal < 0.1 %)\
             \n  freshness        {:.3} % of online seconds less than 1 s behind\
             \n  bytes            {} per update (median); {} by MQTT + {} by HTTP; full polling would have taken {} ({saved:.1} times as much)\n",
            self.duration_s,
            self.devices,
            self.branches,
            self.rows,
            self.commits,
            self.frames,
            yes(self.converged),
            yes(ops.lost == 0),
            ops.sent,
            ops.accepted,
            ops.rejected,
            ops.lost,
            yes(ops.doubled == 0),
            ops.duplicates,
            self.latency_ms.p50,
            self.latency_ms.p99,
            self.latency_ms.max,
            self.publish.acknowledged,
            self.publish.attempted,
            self.publish.success_rate * 100.0,
            self.fallback_rate * 100.0,
            self.freshness * 100.0,
            self.bytes.per_update_p50,
            bytes(self.bytes.mqtt),
            bytes(self.bytes.http),
            bytes(self.bytes.full_polling_would_be),
        );
        for fault in &self.faults {
            out.push_str(&format!("\n  FAULT  {fault}"));
        }
        out.push_str(if self.is_good() {
            "\n  Nothing lost, nothing doubled, nothing stale.\n"
        } else {
            "\n  This run broke a promise.\n"
        });
        out
    }
}

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..=9_999 => format!("{count} B"),
        10_000..=9_999_999 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn good() -> Figures {
        Figures {
            converged: true,
            devices: 2,
            branches: 1,
            rows: 10,
            commits: 5,
            frames: 5,
            operations: Operations { sent: 3, accepted: 3, ..Operations::default() },
            latency_ms: Latency::default(),
            publish: Publish::default(),
            fallback_rate: 0.0,
            freshness: 1.0,
            bytes: Bytes::default(),
            duration_s: 1.0,
            faults: Vec::new(),
        }
    }

    #[test]
    fn any_broken_promise_is_a_bad_run() {
        assert!(good().is_good());
        assert!(!Figures { converged: false, ..good() }.is_good());
        assert!(!Figures { operations: Operations { lost: 1, ..Operations::default() }, ..good() }.is_good());
        assert!(!Figures { operations: Operations { doubled: 1, ..Operations::default() }, ..good() }.is_good());
        assert!(!Figures { faults: vec!["x".into()], ..good() }.is_good());
        assert!(Figures { faults: vec!["stock differs".into()], ..good() }.page().contains("FAULT  stock differs"));
    }
}
