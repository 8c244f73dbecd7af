//! Writes an answer's lines by hand: the rows are canonical JSON already, and there may be hundreds of thousands of them.

use std::{any::Any, io::Write as _};

use mstore_protocol::{BranchKey, ChangesEnd, ChangesFirst, Cursor, Epoch, OperationId, Seq};
use mstore_store::{ChangeRow, ChangesAsk, ChangesError, ChangesSummary, RowSink, Store, StoreError};

use super::coding::Shared;

/// Room made for the lines at first.
const LINES_BYTES: usize = 16 * 1024;
/// Longer answers are compressed while they are read, so that the plain text is never in memory as a whole.
const PLAIN_BYTES_MAX: usize = 64 * 1024;
const ZSTD_LEVEL: i32 = 3;

/// An answer without its first line.
pub(crate) struct Answer {
    pub(crate) summary: ChangesSummary,
    pub(crate) shared: Shared,
}

impl Answer {
    /// Reads it from the store in one consistent read.
    pub(crate) async fn read(store: &dyn Store, ask: ChangesAsk) -> Result<Self, ChangesError> {
        // A resume position names the seq whose later deletions are needed: where a snapshot ends, where a catch-up starts. Read before, it can
        // only be lower, which repeats deletions and loses none; a new epoch in between is seen afterwards.
        let mut tries = 0;
        loop {
            let head = store.head(&ask.key).await?.ok_or_else(|| ChangesError::UnknownBranch(ask.key.clone()))?;
            let known = ask.resume.as_ref().map(|place| place.to).or(ask.after.map(|cursor| cursor.seq)).unwrap_or(head.seq);
            let (summary, sink) = store.changes(ask.clone(), Box::new(LineSink::new(head.epoch, known))).await?;
            tries += 1;
            if summary.epoch != head.epoch {
                if tries == 3 {
                    return Err(StoreError::Failed(format!("the epoch of {} changes all the time", ask.key)).into());
                }
                continue;
            }
            let sink = sink.into_any().downcast::<LineSink>().map_err(|_| StoreError::Failed("the store gave another sink back".into()))?;
            return sink.finish(summary).map_err(ChangesError::Store);
        }
    }

    /// The first line of one caller.
    pub(crate) fn first_line(&self, ops: Vec<OperationId>) -> Vec<u8> {
        let ChangesSummary { epoch, from, to, rows, .. } = self.summary;
        let mut line = serde_json::to_vec(&ChangesFirst { epoch, from, to, rows, ops }).expect("a first line is always JSON");
        line.push(b'\n');
        line
    }

    /// What the device has after it.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor { epoch: self.summary.epoch, seq: self.summary.to, tag: self.summary.tag }
    }
}

/// Which answer: to a cursor, or a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AnswerKey {
    pub(crate) key: BranchKey,
    pub(crate) after: Option<Cursor>,
}

enum Out {
    Plain(Vec<u8>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>, u64),
    Broken(String),
}

struct LineSink {
    /// `{epoch}.{to}.`, the same in every position.
    place: String,
    id: Vec<u8>,
    line: Vec<u8>,
    out: Out,
}

impl LineSink {
    fn new(epoch: Epoch, to: Seq) -> Self {
        Self {
            place: format!("{epoch}.{to}."),
            id: Vec::with_capacity(64),
            line: Vec::with_capacity(1024),
            out: Out::Plain(Vec::with_capacity(LINES_BYTES)),
        }
    }

    fn finish(mut self, summary: ChangesSummary) -> Result<Answer, StoreError> {
        let end = ChangesEnd { end: true, seq: summary.to, tag: summary.tag, digests: summary.digests.clone() };
        self.line.clear();
        serde_json::to_writer(&mut self.line, &end).expect("a last line is always JSON");
        self.line.push(b'\n');
        self.flush_line();
        let shared = match self.out {
            Out::Plain(plain) => Shared::plain(plain.into()),
            Out::Zstd(encoder, plain_bytes) => {
                let bytes = encoder.finish().map_err(|error| StoreError::Failed(format!("compression failed: {error}")))?;
                Shared::zstd(bytes.into(), plain_bytes)
            }
            Out::Broken(reason) => return Err(StoreError::Failed(reason)),
        };
        Ok(Answer { summary, shared })
    }

    fn flush_line(&mut self) {
        match &mut self.out {
            Out::Plain(plain) => {
                plain.extend_from_slice(&self.line);
                if plain.len() > PLAIN_BYTES_MAX {
                    self.out = to_zstd(plain);
                }
            }
            Out::Zstd(encoder, plain_bytes) => {
                *plain_bytes += u64::try_from(self.line.len()).unwrap_or(0);
                if let Err(error) = encoder.write_all(&self.line) {
                    self.out = Out::Broken(format!("compression failed: {error}"));
                }
            }
            Out::Broken(_) => {}
        }
    }
}

fn to_zstd(plain: &[u8]) -> Out {
    let started = zstd::stream::write::Encoder::new(Vec::with_capacity(PLAIN_BYTES_MAX), ZSTD_LEVEL).and_then(|mut encoder| {
        encoder.write_all(plain)?;
        Ok(encoder)
    });
    match started {
        Ok(encoder) => Out::Zstd(encoder, u64::try_from(plain.len()).unwrap_or(0)),
        Err(error) => Out::Broken(format!("compression failed: {error}")),
    }
}

impl RowSink for LineSink {
    fn row(&mut self, row: ChangeRow<'_>) {
        // `{"c","op","id","seq","p","row"}`; ids are the only part that may need escapes.
        self.id.clear();
        serde_json::to_writer(&mut self.id, row.id).expect("a string is always JSON");
        let id = &self.id[1..self.id.len() - 1];
        let line = &mut self.line;
        line.clear();
        line.extend_from_slice(b"{\"c\":\"");
        line.extend_from_slice(row.collection.as_str().as_bytes());
        line.extend_from_slice(if row.row.is_some() { b"\",\"op\":\"put\",\"id\":\"" } else { b"\",\"op\":\"delete\",\"id\":\"" });
        line.extend_from_slice(id);
        write!(line, "\",\"seq\":{},\"p\":\"{}{}.{}.", row.seq, self.place, row.seq, row.collection).expect("memory takes it");
        line.extend_from_slice(id);
        line.push(b'"');
        if let Some(text) = row.row {
            line.extend_from_slice(b",\"row\":");
            line.extend_from_slice(text.as_bytes());
        }
        line.extend_from_slice(b"}\n");
        self.flush_line();
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use mstore_protocol::{ChangeLine, Collection, LineOp, Position, Tag};

    use super::*;
    use crate::answers::Coding;

    fn answer(rows: &[(&str, Option<&str>)]) -> Answer {
        let epoch = Epoch::from_bits(7);
        let mut sink = LineSink::new(epoch, 9);
        let collection = Collection::product();
        for (id, row) in rows {
            sink.row(ChangeRow { collection: &collection, id, seq: 3, row: *row });
        }
        let rows = u64::try_from(rows.len()).unwrap();
        let summary = ChangesSummary { epoch, from: 0, to: 9, tag: Tag::from_bits(1), rows, digests: BTreeMap::new() };
        sink.finish(summary).unwrap()
    }

    fn plain(answer: &Answer) -> String {
        let body = answer.shared.body(Coding::Identity, b"").unwrap();
        String::from_utf8(body.concat()).unwrap()
    }

    #[test]
    fn lines_have_the_shape_of_the_contract() {
        let odd = "a\"b\\c\nä";
        let row = format!("{{\"id\":{}}}", serde_json::to_string(odd).unwrap());
        let text = plain(&answer(&[("tea", Some(r#"{"id":"tea"}"#)), (odd, Some(&row)), ("gone", None)]));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], r#"{"c":"product","op":"put","id":"tea","seq":3,"p":"0000000000000007.9.3.product.tea","row":{"id":"tea"}}"#);
        let second: ChangeLine<'_> = serde_json::from_str(lines[1]).unwrap();
        assert_eq!((&*second.id, second.row.unwrap().get()), (odd, row.as_str()));
        assert_eq!(Position::parse(&second.p).unwrap().id, odd);
        let third: ChangeLine<'_> = serde_json::from_str(lines[2]).unwrap();
        assert_eq!((third.op, third.row.is_none()), (LineOp::Delete, true));
        assert_eq!(lines[3], r#"{"end":true,"seq":9,"tag":"0000000000000001","digests":{}}"#);
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn a_long_answer_is_compressed_on_the_way_and_loses_nothing() {
        let row = format!(r#"{{"id":"x","name":"{}"}}"#, "n".repeat(500));
        let rows = vec![("x", Some(row.as_str())); 1_000];
        let long = answer(&rows);
        assert!(long.shared.stored_bytes() < 100_000, "{}", long.shared.stored_bytes());
        assert_eq!(plain(&long).lines().count(), 1_001);
    }
}
