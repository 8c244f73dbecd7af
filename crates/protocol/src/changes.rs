//! The lines of a `/changes` answer: a first line, a line per row in (seq, collection, id) order, a last line.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Collection, Digest, Epoch, OperationId, Row, Seq, Tag, cursor::parse_seq};

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangesFirst {
    /// The numbering.
    pub epoch: Epoch,
    /// The seq the answer starts after; 0 for a snapshot.
    #[serde(deserialize_with = "crate::cursor::read_seq")]
    pub from: Seq,
    /// The seq the answer ends at.
    #[serde(deserialize_with = "crate::cursor::read_seq")]
    pub to: Seq,
    /// How many row lines follow.
    pub rows: u64,
    /// The caller's own operations contained up to `to`, newest last, at most [`crate::limits::CHANGES_OPS_MAX`].
    #[serde(default)]
    pub ops: Vec<OperationId>,
}

/// What a line says of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineOp {
    /// The whole row as it is now.
    Put,
    /// The row is gone.
    Delete,
}

/// A row line, borrowing from the text it was read from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeLine<'a> {
    /// The collection.
    #[serde(borrow)]
    pub c: Cow<'a, str>,
    /// Put or delete.
    pub op: LineOp,
    /// The row's id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The commit that last changed the row.
    #[serde(deserialize_with = "crate::cursor::read_seq")]
    pub seq: Seq,
    /// Where to resume after this line ([`Position`], opaque to clients).
    #[serde(borrow)]
    pub p: Cow<'a, str>,
    /// The row; absent for a delete.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub row: Option<&'a RawValue>,
}

/// The last line; an answer without it is incomplete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangesEnd {
    /// Always true.
    pub end: bool,
    /// The seq that the device now has.
    #[serde(deserialize_with = "crate::cursor::read_seq")]
    pub seq: Seq,
    /// Its tag.
    pub tag: Tag,
    /// The digests at `seq`.
    pub digests: BTreeMap<Collection, Digest>,
}

/// A place within an answer to go on from: `{epoch}.{to}.{seq}.{collection}.{id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The numbering.
    pub epoch: Epoch,
    /// Deletions since this seq are needed too: where the broken answer would have ended (snapshot) or started (catch-up).
    pub to: Seq,
    /// The seq of the last line received.
    pub seq: Seq,
    /// Its collection.
    pub collection: Collection,
    /// Its row id.
    pub id: String,
}

/// A resume position that this server did not give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a resume position; take `p` of the last line received")]
pub struct PositionError;

impl Position {
    /// Parses what [`ChangeLine::p`] held.
    pub fn parse(raw: &str) -> Result<Self, PositionError> {
        let mut parts = raw.splitn(5, '.');
        let mut next = || parts.next().ok_or(PositionError);
        let (epoch, to, seq, collection, id) = (next()?, next()?, next()?, next()?, next()?);
        Row::check_id(id).map_err(|_| PositionError)?;
        Ok(Self {
            epoch: Epoch::parse(epoch).map_err(|_| PositionError)?,
            to: parse_seq(to).ok_or(PositionError)?,
            seq: parse_seq(seq).ok_or(PositionError)?,
            collection: Collection::parse(collection).map_err(|_| PositionError)?,
            id: id.to_owned(),
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}.{}", self.epoch, self.to, self.seq, self.collection, self.id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_position_keeps_any_id() {
        let text = "b5d0c1a97e3f4a62.1042.17.product.SKU.00 42/ä";
        assert_eq!(Position::parse(text).unwrap().to_string(), text);
        assert_eq!(Position::parse(text).unwrap().id, "SKU.00 42/ä");
        for bad in ["", "x", "b5d0c1a97e3f4a62.1.2.product", "b5d0c1a97e3f4a62.1.2.product.", "b5d0c1a97e3f4a62.a.2.product.x"] {
            assert!(Position::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_numbers_of_a_position_have_one_spelling_and_fit_every_database() {
        for number in ["+7", "07", "18446744073709551615", "9007199254740992"] {
            assert!(Position::parse(&format!("b5d0c1a97e3f4a62.{number}.7.product.a")).is_err(), "{number}");
            assert!(Position::parse(&format!("b5d0c1a97e3f4a62.7.{number}.product.a")).is_err(), "{number}");
        }
    }
}
