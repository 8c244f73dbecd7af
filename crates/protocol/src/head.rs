//! The head of a branch: its newest commit and the digests of its collections.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Collection, Cursor, Digest, Epoch, Seq, Tag, Timestamp, limits::FRAME_BYTES_MAX};

/// What a branch is now; retained on MQTT, authoritative over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Head {
    /// [`crate::PROTOCOL_VERSION`].
    pub v: u32,
    /// The numbering.
    pub epoch: Epoch,
    /// The newest commit; 0 before the first.
    #[serde(deserialize_with = "crate::cursor::read_seq")]
    pub seq: Seq,
    /// Its tag.
    pub tag: Tag,
    /// Server time when this head was made.
    pub at: Timestamp,
    /// One digest per collection, at `seq`.
    pub digests: BTreeMap<Collection, Digest>,
    /// The newest commits were sent without frames: pull within this time, at a random moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_within_ms: Option<u64>,
    /// Since then the server holds the branch's next commit back (a mass deletion that nobody has confirmed) or cannot make it: what devices have is
    /// not what the source has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_since: Option<Timestamp>,
}

impl Head {
    /// The cursor of a device that has all of it.
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, seq: self.seq, tag: self.tag }
    }

    /// Parses a payload and checks its size and version.
    pub fn parse(payload: &[u8]) -> Result<Self, serde_json::Error> {
        use serde::de::Error as _;
        if payload.len() > FRAME_BYTES_MAX {
            return Err(serde_json::Error::custom(format!("{} bytes; a head has at most {FRAME_BYTES_MAX}", payload.len())));
        }
        let head: Self = serde_json::from_slice(payload)?;
        if head.v != crate::PROTOCOL_VERSION {
            return Err(serde_json::Error::custom(format!("version {}; this client understands 1", head.v)));
        }
        Ok(head)
    }

    /// The payload.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a head is always JSON")
    }
}
