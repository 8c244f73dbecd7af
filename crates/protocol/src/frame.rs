//! A frame: one MQTT message holding the changes of one commit in one collection (§4.2 of the contract).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    Collection, Epoch, OperationId, Row, RowError, Seq, Tag, Timestamp,
    canonical::{CanonicalError, canonicalise, merge_members},
    limits::FRAME_BYTES_MAX,
};

/// The version that frames and heads carry as `v`.
pub const PROTOCOL_VERSION: u32 = 1;

/// What happens to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeOp {
    /// The whole row.
    Put,
    /// Top-level fields to replace; `null` is a value.
    Patch,
    /// The row is gone.
    Delete,
}

/// One row's change within a frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// Put, patch or delete.
    pub op: ChangeOp,
    /// The row's id.
    pub id: String,
    /// The row (put), the fields (patch), nothing (delete); canonical JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<Box<RawValue>>,
}

impl PartialEq for Change {
    fn eq(&self, other: &Self) -> bool {
        let text = |change: &Self| change.row.as_ref().map(|row| row.get().to_owned());
        self.op == other.op && self.id == other.id && text(self) == text(other)
    }
}

impl Change {
    /// The whole row, for `put`.
    pub fn row(&self) -> Result<Row, FrameError> {
        let raw = self.row.as_ref().ok_or(FrameError::RowMissing)?;
        let row = Row::parse(raw.get())?;
        if row.id() == self.id { Ok(row) } else { Err(FrameError::IdDiffers) }
    }

    /// The fields to replace, for `patch`.
    pub fn patch(&self) -> Result<Map<String, Value>, FrameError> {
        let raw = self.row.as_ref().ok_or(FrameError::RowMissing)?;
        let canonical = canonicalise(raw.get()).map_err(RowError::from)?;
        serde_json::from_str(&canonical).map_err(|_| FrameError::Row(RowError::NotAnObject))
    }

    /// What this patch makes of a base row's canonical text.
    pub fn patched(&self, base: &str) -> Result<Row, FrameError> {
        let raw = self.row.as_ref().ok_or(FrameError::RowMissing)?;
        let patch = canonicalise(raw.get()).map_err(RowError::from)?;
        let row = match merge_members(base, &patch) {
            Some(merged) => match Row::merged(&self.id, merged) {
                Ok(row) => return Ok(row),
                Err(merged) => Row::parse(&merged.text)?,
            },
            None => Row::parse(base)?.patched(&self.patch()?)?,
        };
        if row.id() == self.id { Ok(row) } else { Err(FrameError::Row(RowError::IdChanged)) }
    }

    fn check(&self) -> Result<(), FrameError> {
        Row::check_id(&self.id)?;
        match self.op {
            ChangeOp::Put => self.row().map(|_| ()),
            ChangeOp::Patch => {
                let raw = self.row.as_ref().ok_or(FrameError::RowMissing)?;
                let canonical = canonicalise(raw.get()).map_err(RowError::from)?;
                if canonical.starts_with('{') { Ok(()) } else { Err(FrameError::Row(RowError::NotAnObject)) }
            }
            ChangeOp::Delete if self.row.is_some() => Err(FrameError::RowInDelete),
            ChangeOp::Delete => Ok(()),
        }
    }
}

/// The changes of one commit in one collection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// [`PROTOCOL_VERSION`].
    pub v: u32,
    /// A hint for people and simple clients, such as `product.stock_updated`.
    #[serde(rename = "type")]
    pub frame_type: String,
    /// The numbering it belongs to.
    pub epoch: Epoch,
    /// The commit's number.
    #[serde(deserialize_with = "crate::cursor::read_seq")]
    pub seq: Seq,
    /// The commit's tag.
    pub tag: Tag,
    /// The previous commit that changed this collection, sent as a frame or not; 0 if none.
    pub prev: Seq,
    /// This frame's number among the commit's frames, from 1.
    pub part: u32,
    /// How many frames the commit has, one per collection.
    pub parts: u32,
    /// Server time of the commit.
    pub at: Timestamp,
    /// On part 1: the device operations whose effect this commit contains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<OperationId>,
    /// The changes, by id.
    pub changes: Vec<Change>,
}

/// Why a payload is not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Over [`FRAME_BYTES_MAX`].
    #[error("{bytes} bytes; a frame has at most 65536")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not JSON of this shape.
    #[error("not a frame: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version.
    #[error("version {found}; this client understands 1")]
    Version {
        /// The `v` it carries.
        found: u32,
    },
    /// `part` is not within 1..=`parts`.
    #[error("part {part} of {parts}")]
    Part {
        /// The part.
        part: u32,
        /// The parts.
        parts: u32,
    },
    /// No changes, or a `seq` of 0, or `prev` not below `seq`.
    #[error("seq {seq} after {prev} with {changes} changes")]
    Numbering {
        /// The commit's number.
        seq: Seq,
        /// The previous one.
        prev: Seq,
        /// How many changes.
        changes: usize,
    },
    /// A row inside is not valid.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A put or patch without a row.
    #[error("a put or patch without a row")]
    RowMissing,
    /// A delete with a row.
    #[error("a delete with a row")]
    RowInDelete,
    /// A put whose row has another id.
    #[error("the row's id differs from the change's")]
    IdDiffers,
}

impl From<CanonicalError> for FrameError {
    fn from(error: CanonicalError) -> Self {
        Self::Row(error.into())
    }
}

impl Frame {
    /// Parses and checks a payload. Unknown envelope fields are ignored, unknown row fields kept.
    pub fn parse(payload: &[u8]) -> Result<Self, FrameError> {
        if payload.len() > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { bytes: payload.len() });
        }
        let frame: Self = serde_json::from_slice(payload)?;
        frame.check()?;
        Ok(frame)
    }

    fn check(&self) -> Result<(), FrameError> {
        if self.v != PROTOCOL_VERSION {
            return Err(FrameError::Version { found: self.v });
        }
        if self.part == 0 || self.part > self.parts {
            return Err(FrameError::Part { part: self.part, parts: self.parts });
        }
        if self.seq == 0 || self.prev >= self.seq || self.changes.is_empty() {
            return Err(FrameError::Numbering { seq: self.seq, prev: self.prev, changes: self.changes.len() });
        }
        self.changes.iter().try_for_each(Change::check)
    }

    /// The payload.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a frame is always JSON")
    }
}

/// The `type` of a frame, from what its changes have in common.
pub fn frame_type(collection: &Collection, changes: &[Change]) -> String {
    let only = |op: ChangeOp| changes.iter().all(|change| change.op == op);
    let patches_only = |field: &str| {
        only(ChangeOp::Patch)
            && changes.iter().all(|change| change.patch().is_ok_and(|patch| patch.len() == 1 && patch.contains_key(field)))
    };
    match collection.as_str() {
        name @ ("product" | "inventory" | "transaction") if only(ChangeOp::Delete) => format!("{name}.deleted"),
        "product" if patches_only("stock") => "product.stock_updated".into(),
        "inventory" if patches_only("quantity") => "inventory.quantity_updated".into(),
        "transaction" if only(ChangeOp::Put) => "transaction.created".into(),
        name @ ("product" | "inventory" | "transaction") => format!("{name}.upserted"),
        name => format!("{name}.changed"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn patched(base: &str, patch: &str) -> Result<Row, FrameError> {
        let row = Some(RawValue::from_string(patch.to_owned()).unwrap());
        Change { op: ChangeOp::Patch, id: "a".into(), row }.patched(base)
    }

    #[test]
    fn texts_are_merged_as_maps_are() {
        let bases = [
            r#"{"id":"a"}"#,
            r#"{"id":"a","name":"Kopi \"tubruk\"","price":{"amount":5,"currency":"IDR"},"stock":"41"}"#,
            "{\"id\":\"a\",\"z\u{e9}ro\":0}",
            r#"{"a":[],"id":"a","line\n":1,"zz":null}"#,
        ];
        let patches = [
            r"{}",
            r#"{"stock":"40"}"#,
            r#"{ "zzz" : 1, "aa" : null }"#,
            r#"{"id":"a","price":{"amount":6}}"#,
            "{\"z\u{e9}ro\":1}",
            r#"{"line\n":2}"#,
        ];
        for (base, patch) in bases.iter().flat_map(|base| patches.iter().map(move |patch| (base, patch))) {
            let slow = Row::parse(base).unwrap().patched(&serde_json::from_str(patch).unwrap()).unwrap();
            assert_eq!(patched(base, patch).unwrap(), slow, "{base} {patch}");
        }
    }

    #[test]
    fn a_patch_neither_changes_the_id_nor_brings_what_a_row_may_not_hold() {
        for bad in [r#"{"id":"b"}"#, r#"{"stock":1.5}"#, r#"{"stock":1,"stock":2}"#, "[]", "1"] {
            assert!(patched(r#"{"id":"a","stock":"41"}"#, bad).is_err(), "{bad}");
        }
        assert!(patched("not JSON", r#"{"stock":"40"}"#).is_err());
    }
}
