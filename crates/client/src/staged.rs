//! Rows of a `/changes` answer on their way: parsed line by line as the bytes come, kept with their text, shown only when the last line is there.

use std::{collections::BTreeMap, sync::Arc};

use mstore_protocol::{
    ChangeLine, ChangesEnd, ChangesFirst, Collection, Cursor, LineOp, OperationId, Row, RowHash, canonicalise, limits::ROW_BYTES_MAX,
};

/// A line holds a row and little more; the first line holds some thousand operation ids. Without a limit, an answer without line ends would
/// fill the memory.
const LINE_BYTES_MAX: usize = 2 * ROW_BYTES_MAX;

/// A segment with so much text takes no more lines. Short enough that whoever waits for the database while one is written waits some milliseconds.
const SEGMENT_BYTES: usize = 256 * 1024;

/// A piece of the answer: where it stands in its segment, or its own text when the segment has it in another spelling.
#[derive(Debug)]
enum Text {
    At(u32, u32),
    Own(Box<str>),
}

#[derive(Debug)]
struct Line {
    collection: u16,
    seq: u64,
    id: Text,
    row: Option<(Text, RowHash)>,
}

/// One staged row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StagedRow<'a> {
    pub(crate) collection: &'a Collection,
    pub(crate) id: &'a str,
    pub(crate) seq: u64,
    /// Canonical text and hash; none: deleted.
    pub(crate) row: Option<(&'a str, RowHash)>,
}

/// Why an answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    #[error("line {line} of the answer is not what the contract says: {detail}")]
    Malformed { line: usize, detail: String },
    #[error("the answer is too large to be held at once")]
    TooLarge,
}

/// Some of the lines in a row, with the text that they point into: once full it never changes or moves again.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    text: Vec<u8>,
    collections: Vec<Collection>,
    lines: Vec<Line>,
}

/// The rows so far. Earlier ones of the same answer may lie in the staging table (`spilled`).
#[derive(Debug, Default)]
pub(crate) struct Staged {
    full: Vec<Arc<Segment>>,
    /// Takes lines; what follows `parsed_to` in its text is no whole line yet.
    last: Segment,
    parsed_to: usize,
    scanned_to: usize,
    lines_seen: usize,
    first: Option<ChangesFirst>,
    end: Option<ChangesEnd>,
    position: Option<String>,
    /// The caller's own operations that the rows contain.
    pub(crate) ops: Vec<OperationId>,
    /// Rows of earlier answers are in here or in the staging table: the same row may stand twice.
    pub(crate) joined: bool,
    /// Some rows are in the staging table.
    pub(crate) spilled: bool,
}

impl Staged {
    /// The rows lie in the staging table since an earlier run.
    pub(crate) fn on_disk(ops: Vec<OperationId>) -> Self {
        Self { ops, joined: true, spilled: true, ..Self::default() }
    }

    /// Another answer follows that goes on from here.
    pub(crate) fn go_on(&mut self) {
        self.last.text.truncate(self.parsed_to);
        self.scanned_to = self.parsed_to;
        self.first = None;
        self.end = None;
        self.joined = true;
    }

    /// Takes the next decoded bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), StageError> {
        self.last.text.extend_from_slice(bytes);
        if u32::try_from(self.last.text.len()).is_err() {
            return Err(StageError::TooLarge);
        }
        while let Some(length) = self.last.text[self.scanned_to..].iter().position(|byte| *byte == b'\n') {
            let to = self.scanned_to + length;
            self.line(self.parsed_to, to)?;
            self.parsed_to = to + 1;
            self.scanned_to = to + 1;
        }
        self.scanned_to = self.last.text.len();
        if self.scanned_to - self.parsed_to > LINE_BYTES_MAX {
            return Err(StageError::Malformed { line: self.lines_seen + 1, detail: "it is too long".into() });
        }
        if self.parsed_to >= SEGMENT_BYTES {
            self.begin_segment();
        }
        Ok(())
    }

    /// The last segment is full; the line that is not whole yet begins the next.
    fn begin_segment(&mut self) {
        let mut next = Segment { text: Vec::with_capacity(SEGMENT_BYTES + SEGMENT_BYTES / 4), ..Segment::default() };
        next.text.extend_from_slice(&self.last.text[self.parsed_to..]);
        next.lines.reserve(self.last.lines.len());
        self.scanned_to -= self.parsed_to;
        self.last.text.truncate(self.parsed_to);
        self.parsed_to = 0;
        self.full.push(Arc::new(std::mem::replace(&mut self.last, next)));
    }

    fn line(&mut self, from: usize, to: usize) -> Result<(), StageError> {
        self.lines_seen += 1;
        let line = self.lines_seen;
        let malformed = |detail: String| StageError::Malformed { line, detail };
        if self.end.is_some() {
            return Err(malformed("it follows the last line".into()));
        }
        if to - from > LINE_BYTES_MAX {
            return Err(malformed("it is too long".into()));
        }
        let text = std::str::from_utf8(&self.last.text[from..to]).map_err(|error| malformed(error.to_string()))?;
        let json = |error: serde_json::Error| malformed(error.to_string());
        if self.first.is_none() {
            let first: ChangesFirst = serde_json::from_str(text).map_err(json)?;
            self.ops.extend(first.ops.iter().copied());
            self.first = Some(first);
            return Ok(());
        }
        if text.starts_with("{\"end\"") {
            self.end = Some(last_line(text).map_err(malformed)?);
            return Ok(());
        }
        let parsed: ChangeLine<'_> = serde_json::from_str(text).map_err(json)?;
        let base = self.last.text.as_ptr() as usize;
        let place = |piece: &str| {
            let at = piece.as_ptr() as usize - base;
            Text::At(u32::try_from(at).unwrap_or(u32::MAX), u32::try_from(piece.len()).unwrap_or(u32::MAX))
        };
        let collections = &mut self.last.collections;
        let known = collections.iter().position(|collection| collection.as_str() == parsed.c);
        let collection = match known {
            Some(known) => known,
            None => {
                collections.push(Collection::parse(&parsed.c).map_err(|error| malformed(error.to_string()))?);
                collections.len() - 1
            }
        };
        Row::check_id(&parsed.id).map_err(|error| malformed(error.to_string()))?;
        let id = match &parsed.id {
            std::borrow::Cow::Borrowed(id) => place(id),
            std::borrow::Cow::Owned(id) => Text::Own(id.as_str().into()),
        };
        let row = match (parsed.op, parsed.row) {
            (LineOp::Delete, None) => None,
            (LineOp::Put, Some(raw)) => {
                let canonical = canonicalise(raw.get()).map_err(|error| malformed(error.to_string()))?;
                if !canonical.starts_with('{') {
                    return Err(malformed("a row is an object".into()));
                }
                let hash = RowHash::of(&self.last.collections[collection], &parsed.id, &canonical);
                Some(match canonical {
                    std::borrow::Cow::Borrowed(row) => (place(row), hash),
                    std::borrow::Cow::Owned(row) => (Text::Own(row.into()), hash),
                })
            }
            (LineOp::Delete, Some(_)) | (LineOp::Put, None) => return Err(malformed("a put has a row, a delete has none".into())),
        };
        let collection = u16::try_from(collection).map_err(|_| malformed("too many collections".into()))?;
        self.last.lines.push(Line { collection, seq: parsed.seq, id, row });
        match &mut self.position {
            Some(held) => held.replace_range(.., &parsed.p),
            none => *none = Some(parsed.p.into_owned()),
        }
        Ok(())
    }

    /// The segments with lines, in the order they came.
    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.full.iter().map(|segment| &**segment).chain([&self.last])
    }

    /// The rows held here, in the order they came, but for those of the first `skip` full segments.
    pub(crate) fn rows_after(&self, skip: usize) -> impl Iterator<Item = StagedRow<'_>> {
        self.segments().skip(skip).flat_map(Segment::rows)
    }

    /// The rows held here, in the order they came.
    pub(crate) fn rows(&self) -> impl Iterator<Item = StagedRow<'_>> {
        self.rows_after(0)
    }

    /// The segments that will not change any more.
    pub(crate) fn full(&self) -> &[Arc<Segment>] {
        &self.full
    }

    /// How many rows are held here.
    pub(crate) fn len(&self) -> usize {
        self.segments().map(|segment| segment.lines.len()).sum()
    }

    /// Bytes held here.
    pub(crate) fn bytes(&self) -> usize {
        self.segments().map(|segment| segment.text.len()).sum()
    }

    /// The rows went to the staging table: make room.
    pub(crate) fn spilled(&mut self) {
        self.begin_segment();
        self.full.clear();
        self.spilled = true;
        self.joined = true;
    }

    /// Where to go on after the last whole line.
    pub(crate) fn position(&self) -> Option<&str> {
        self.position.as_deref()
    }

    /// Where the answer ends and what must hold there; none while the last line is missing.
    pub(crate) fn end(&self) -> Option<(Cursor, BTreeMap<Collection, mstore_protocol::Digest>)> {
        let (first, end) = (self.first.as_ref()?, self.end.as_ref()?);
        Some((Cursor { epoch: first.epoch, seq: end.seq, tag: end.tag }, end.digests.clone()))
    }
}

impl Segment {
    fn text<'a>(&'a self, text: &'a Text) -> &'a str {
        match text {
            Text::At(at, length) => {
                let (at, length) = (*at as usize, *length as usize);
                std::str::from_utf8(&self.text[at..at + length]).expect("it was checked when the line was parsed")
            }
            Text::Own(text) => text,
        }
    }

    /// Its rows, in the order they came.
    pub(crate) fn rows(&self) -> impl Iterator<Item = StagedRow<'_>> {
        self.lines.iter().map(|line| StagedRow {
            collection: &self.collections[usize::from(line.collection)],
            id: self.text(&line.id),
            seq: line.seq,
            row: line.row.as_ref().map(|(text, hash)| (self.text(text), *hash)),
        })
    }
}

fn last_line(text: &str) -> Result<ChangesEnd, String> {
    let end: ChangesEnd = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if end.end { Ok(end) } else { Err("a last line says `true`".into()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FIRST: &str = r#"{"epoch":"b5d0c1a97e3f4a62","from":0,"to":7,"rows":3,"ops":[]}"#;
    const END: &str = r#"{"end":true,"seq":7,"tag":"9c41d2e07ab85f13","digests":{}}"#;

    fn answer() -> String {
        let line = |id: &str, row: &str| format!(r#"{{"c":"product","op":"put","id":"{id}","seq":5,"p":"p-{id}","row":{row}}}"#);
        let a = line("a", r#"{"id":"a","stock":"1"}"#);
        let quoted = line(r#"b\"ä"#, r#"{"stock":"2","id":"b\"ä"}"#);
        let gone = r#"{"c":"inventory","op":"delete","id":"c","seq":6,"p":"p-c"}"#;
        format!("{FIRST}\n{a}\n{quoted}\n{gone}\n{END}\n")
    }

    fn shown(staged: &Staged) -> Vec<String> {
        staged.rows().map(|row| format!("{} {} {} {}", row.collection, row.id, row.seq, row.row.map_or("-", |(text, _)| text))).collect()
    }

    #[test]
    fn any_cut_of_the_bytes_gives_the_same_rows() {
        let answer = answer();
        let expect = vec![r#"product a 5 {"id":"a","stock":"1"}"#, r#"product b"ä 5 {"id":"b\"ä","stock":"2"}"#, "inventory c 6 -"];
        for size in [1, 2, 7, 64, 10_000] {
            let mut staged = Staged::default();
            for piece in answer.as_bytes().chunks(size) {
                staged.feed(piece).unwrap();
            }
            assert_eq!(shown(&staged), expect, "pieces of {size}");
            assert_eq!(staged.end().unwrap().0.seq, 7);
        }
    }

    #[test]
    fn an_answer_without_its_last_line_has_no_end_but_a_place_to_go_on() {
        let whole = answer();
        let mut staged = Staged::default();
        staged.feed(&whole.as_bytes()[..whole.find(r#"{"c":"inventory""#).unwrap() + 9]).unwrap();
        assert!(staged.end().is_none());
        assert_eq!((staged.len(), staged.position()), (2, Some(r#"p-b"ä"#)));
        staged.spilled();
        staged.go_on();
        staged.feed(format!("{FIRST}\n{END}\n").as_bytes()).unwrap();
        assert!(staged.end().is_some() && staged.len() == 0 && staged.spilled);
    }

    #[test]
    fn what_breaks_the_contract_is_refused_with_its_line() {
        for bad in [
            r#"{"c":"product","op":"put","id":"a","seq":5,"p":""}"#,
            r#"{"c":"product","op":"put","id":"a","seq":5,"p":"","row":{"x":1.5}}"#,
            r#"{"c":"product","op":"put","id":"a","seq":5,"p":"","row":5}"#,
            r#"{"c":"product","op":"delete","id":"","seq":5,"p":""}"#,
            r#"{"end":false,"seq":7,"tag":"9c41d2e07ab85f13","digests":{}}"#,
            "x",
        ] {
            let error = Staged::default().feed(format!("{FIRST}\n{bad}\n").as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with("line 2 "), "{error}");
        }
        let error = Staged::default().feed(format!("{FIRST}\n{END}\n{END}\n").as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("line 3 "), "nothing follows the last line: {error}");
    }

    #[test]
    fn an_answer_without_line_ends_does_not_fill_the_memory() {
        let mut staged = Staged::default();
        let refused_after = (0..1_000).find(|_| staged.feed(&[b'x'; 64 * 1024]).is_err());
        assert!(refused_after.is_some() && staged.bytes() <= LINE_BYTES_MAX + 64 * 1024, "{}", staged.bytes());
        let long = format!("{FIRST}\n\"{}\"\n", "x".repeat(LINE_BYTES_MAX));
        assert!(Staged::default().feed(long.as_bytes()).unwrap_err().to_string().contains("too long"));
    }
}
