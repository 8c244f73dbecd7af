//! What MQTT, HTTP and people bring to a till, thrown with one seed.

use std::collections::BTreeMap;

use mstore_engine::{CatchUpOutcome, Fault, QueuedOperation};
use mstore_protocol::{
    Change, ChangeOp, Code, Collection, Cursor, Digest, Epoch, Frame, Head, OperationId, PROTOCOL_VERSION, Tag, Timestamp, Verdict,
    VerdictStatus,
};

/// Where all chance of a history comes from: a linear congruential generator (Knuth, MMIX), its high bits.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    /// A number in `0..below`.
    pub(crate) fn up_to(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let n = self.up_to(from.len() as u64);
        from[usize::try_from(n).unwrap()].clone()
    }

    pub(crate) fn fault(&mut self) -> Fault {
        let retry_after_ms = self.pick(&[None, None, Some(0), Some(1_000), Some(9_000_000_000_000)]);
        Fault { retry_after_ms, reached: retry_after_ms.is_some() }
    }

    /// Where the till is, near it, or of another numbering.
    pub(crate) fn cursor(&mut self, here: Option<Cursor>) -> Cursor {
        let base = here.map_or(0, |cursor| cursor.seq);
        let seq = self.pick(&[base, base, base + 1, base + 1, base + 1, base + 2, base + 3, base.saturating_sub(1), 0, 7]);
        let other = Cursor { epoch: Epoch::from_bits(2), ..near(here, seq) };
        let renamed = Cursor { tag: Tag::from_bits(99), ..near(here, seq) };
        let same = near(here, seq);
        self.pick(&[same, same, same, same, same, same, same, same, renamed, other])
    }

    /// The same place in another numbering.
    pub(crate) fn other(&mut self, here: Option<Cursor>) -> Option<Cursor> {
        here.map(|cursor| Cursor { epoch: Epoch::from_bits(self.pick(&[3, 4])), ..cursor })
    }

    pub(crate) fn frame(&mut self, here: Option<Cursor>) -> (Collection, Frame) {
        let cursor = self.cursor(here);
        let seq = cursor.seq.max(1);
        let parts = self.pick(&[1, 1, 1, 2, 3]);
        let part = self.pick(&[1, 2, 3]).min(parts);
        let Cursor { epoch, tag, .. } = near(Some(cursor), seq);
        let tag = if cursor.tag == Tag::from_bits(99) { cursor.tag } else { tag };
        let frame = Frame {
            v: PROTOCOL_VERSION,
            frame_type: "product.deleted".into(),
            epoch,
            seq,
            tag,
            prev: 0,
            part,
            parts,
            at: Timestamp::from_ms(0),
            ops: vec![operation(self.up_to(40)).id],
            changes: vec![Change { op: ChangeOp::Delete, id: "a".into(), row: None }],
        };
        (self.pick(Collection::built_in().as_slice()), frame)
    }

    pub(crate) fn head(&mut self, here: Option<Cursor>) -> Head {
        let pull_within_ms = self.pick(&[None, None, None, Some(5), Some(5_000), Some(9_000_000_000_000)]);
        let held_since = self.pick(&[None, None, None, None, Some(Timestamp::from_ms(0))]);
        let mut head = Head { pull_within_ms, held_since, ..head_at(self.cursor(here)) };
        if self.up_to(4) == 0 {
            head.digests.insert(Collection::product(), digest(1));
        }
        if self.up_to(12) == 0 {
            head.digests.insert(Collection::parse("price_list").unwrap(), digest(0));
        }
        head
    }

    pub(crate) fn code(&mut self) -> Code {
        self.pick(&[Code::CredentialsRefused, Code::DeviceRevoked, Code::Forbidden, Code::BodyTooLarge, Code::Unknown])
    }

    pub(crate) fn outcome(&mut self, here: Option<Cursor>) -> CatchUpOutcome {
        match self.up_to(12) {
            0..=2 => CatchUpOutcome::Unchanged,
            3 => CatchUpOutcome::Broken { resume: self.pick(&[None, Some("1.1.1.product.a".to_owned())]) },
            4 => CatchUpOutcome::SnapshotRequired,
            5 => CatchUpOutcome::Refused(self.code()),
            6 => CatchUpOutcome::Failed(self.fault()),
            _ => {
                let head = self.head(here);
                CatchUpOutcome::Complete { to: head.cursor(), digests: head.digests }
            }
        }
    }

    /// Of this operation, or of none.
    pub(crate) fn verdict(&mut self, id: OperationId) -> Verdict {
        let status = self.pick(&[VerdictStatus::Accepted, VerdictStatus::Duplicate, VerdictStatus::Rejected]);
        let code = if status == VerdictStatus::Rejected { Some(Code::UnknownProduct) } else { None };
        let id = if self.up_to(6) == 0 { String::new() } else { id.to_string() };
        let seq = if code.is_none() { Some(self.up_to(30)) } else { None };
        Verdict { id, status, seq, code, detail: None }
    }
}

/// A commit of the numbering that the till knows, or of the first one; its tag follows from its number.
pub(crate) fn near(here: Option<Cursor>, seq: u64) -> Cursor {
    let epoch = here.map_or(Epoch::from_bits(1), |cursor| cursor.epoch);
    Cursor { epoch, seq, tag: Tag::from_bits(seq * 17 + 3) }
}

pub(crate) fn head_at(cursor: Cursor) -> Head {
    let Cursor { epoch, seq, tag } = cursor;
    let digests = BTreeMap::from([(Collection::product(), digest(0)), (Collection::inventory(), digest(0))]);
    Head { v: PROTOCOL_VERSION, epoch, seq, tag, at: Timestamp::from_ms(0), digests, pull_within_ms: None, held_since: None }
}

pub(crate) fn digest(n: u64) -> Digest {
    Digest::parse(&format!("{n:032x}")).unwrap()
}

pub(crate) fn operation(n: u64) -> QueuedOperation {
    let at = Timestamp::from_ms(i64::try_from(n).unwrap() * 1_000);
    QueuedOperation { id: OperationId::from_parts(at, [7; 10]), at }
}

pub(crate) fn accepted(id: OperationId) -> Verdict {
    Verdict { id: id.to_string(), status: VerdictStatus::Accepted, seq: Some(1), code: None, detail: None }
}
