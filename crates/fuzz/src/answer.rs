//! An answer of `/changes` as the client stages it: however the bytes are cut, the rows are the same, and each is one that can be shown.

use std::borrow::Cow;

use mstore_protocol::{Row, RowHash, canonicalise};

use crate::staged::{StageError, Staged};

/// The first byte says how the rest is cut.
pub fn answer(bytes: &[u8]) {
    let Some((cut, body)) = bytes.split_first() else { return };
    let (whole, pieces) = (take(&[body]), take(&body.chunks(usize::from(*cut) + 1).collect::<Vec<_>>()));
    let (Ok(whole), Ok(pieces)) = (&whole, &pieces) else {
        assert_eq!(whole.is_err(), pieces.is_err(), "another cut, another verdict");
        return;
    };
    assert!(whole.rows().eq(pieces.rows()), "another cut, other rows");
    assert_eq!((whole.position(), whole.end(), &whole.ops), (pieces.position(), pieces.end(), &pieces.ops));
    assert_eq!(whole.bytes(), body.len());
    for row in whole.rows() {
        assert!(Row::check_id(row.id).is_ok());
        if let Some((text, hash)) = row.row {
            assert!(
                matches!(canonicalise(text), Ok(Cow::Borrowed(_))) || !text.is_ascii() || text.contains('\\'),
                "{text} is not canonical"
            );
            assert_eq!(hash, RowHash::of(row.collection, row.id, text));
            assert!(text.starts_with('{'));
        }
    }
}

fn take(pieces: &[&[u8]]) -> Result<Staged, StageError> {
    let mut staged = Staged::default();
    pieces.iter().try_for_each(|piece| staged.feed(piece))?;
    Ok(staged)
}
