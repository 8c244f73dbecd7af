//! Who watches a stream of changes, knows only what it was told, and notices what cannot be.
//!
//! The rules that all writers keep: the rows of a group (`NAME-1`, `NAME-2`, …) have one value after every commit, and all of them are there
//! or none; the value of a row never falls.

use std::collections::{BTreeMap, BTreeSet};

/// Rows of a group, unless it is the bulk.
pub(crate) const GROUP_ROWS: usize = 3;
/// The group of very many rows.
pub(crate) const BULK: &str = "bulk";

/// A branch and a row's id.
pub(crate) type Key = (String, String);

/// What cannot be was seen so often; an example of each.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Points at which a reader would have shown a state to somebody.
    pub(crate) boundaries: u64,
    pub(crate) changes: u64,
    /// Groups whose rows disagreed at such a point.
    pub(crate) torn: u64,
    /// Rows that went back to an older value.
    pub(crate) inverted: u64,
    /// Rows that are not at the end what they are at the source.
    pub(crate) lost: u64,
    pub(crate) examples: Vec<String>,
}

impl Findings {
    /// # Panics
    /// When there was anything to find, or nothing to look at.
    pub(crate) fn assert_clean(&self) {
        assert!((self.torn, self.inverted, self.lost) == (0, 0, 0), "{self:?}");
        assert!(self.boundaries > 10 && self.changes > 1_000, "too little was seen to say anything: {self:?}");
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < 8 {
            self.examples.push(text());
        }
    }
}

pub(crate) struct Observer {
    rows: BTreeMap<Key, i64>,
    highest: BTreeMap<Key, i64>,
    touched: BTreeSet<Key>,
    bulk_rows: usize,
    pub(crate) found: Findings,
}

impl Observer {
    pub(crate) fn new(bulk_rows: usize) -> Self {
        Self { rows: BTreeMap::new(), highest: BTreeMap::new(), touched: BTreeSet::new(), bulk_rows, found: Findings::default() }
    }

    /// What is there before anybody writes.
    pub(crate) fn begin_with(&mut self, rows: BTreeMap<Key, i64>) {
        self.highest.clone_from(&rows);
        self.rows = rows;
    }

    pub(crate) fn put(&mut self, branch: &str, id: &str, value: i64) {
        let key = (branch.to_owned(), id.to_owned());
        let highest = self.highest.entry(key.clone()).or_insert(value);
        if value < *highest {
            self.found.inverted += 1;
            self.found.example(|| format!("{branch}/{id} went from {highest} back to {value}"));
        }
        *highest = value.max(*highest);
        self.rows.insert(key, value);
        self.touch(branch, id);
    }

    pub(crate) fn delete(&mut self, branch: &str, id: &str) {
        self.rows.remove(&(branch.to_owned(), id.to_owned()));
        self.touch(branch, id);
    }

    /// The row as this observer knows it.
    pub(crate) fn value(&self, branch: &str, id: &str) -> Option<i64> {
        self.rows.get(&(branch.to_owned(), id.to_owned())).copied()
    }

    fn touch(&mut self, branch: &str, id: &str) {
        self.found.changes += 1;
        self.touched.insert((branch.to_owned(), group_of(id).to_owned()));
    }

    /// What was told so far is shown to somebody now.
    pub(crate) fn boundary(&mut self) {
        self.found.boundaries += 1;
        for (branch, group) in std::mem::take(&mut self.touched) {
            let members: Vec<i64> = self.members(&branch, &group).map(|(_id, value)| value).collect();
            let all = if group == BULK { self.bulk_rows } else { GROUP_ROWS };
            let is_whole = members.is_empty() || (members.len() == all && members.iter().all(|value| *value == members[0]));
            if !is_whole {
                self.found.torn += 1;
                let sample: BTreeSet<i64> = members.iter().copied().collect();
                self.found.example(|| format!("{branch}/{group} was shown with {} of {all} rows and the values {sample:?}", members.len()));
            }
        }
    }

    /// Compares with the source, when everybody has finished.
    pub(crate) fn end(mut self, source: &BTreeMap<Key, i64>) -> Findings {
        let keys: BTreeSet<&Key> = source.keys().chain(self.rows.keys()).collect();
        for key in keys {
            let (is, seen) = (source.get(key), self.rows.get(key));
            if is != seen {
                self.found.lost += 1;
                self.found.example(|| format!("{key:?} is {is:?} and was last seen as {seen:?}"));
            }
        }
        self.found
    }

    fn members(&self, branch: &str, group: &str) -> impl Iterator<Item = (&str, i64)> {
        let first = (branch.to_owned(), format!("{group}-"));
        let group = group.to_owned();
        let rows = self.rows.range(first.clone()..).take_while(move |(key, _value)| key.0 == first.0 && group_of(&key.1) == group);
        rows.map(|(key, value)| (key.1.as_str(), *value))
    }
}

/// `g7` of `g7-2`.
fn group_of(id: &str) -> &str {
    id.rsplit_once('-').map_or(id, |(group, _member)| group)
}

#[test]
fn an_observer_sees_what_cannot_be() {
    let mut observer = Observer::new(4);
    for (id, value) in [("g-1", 1), ("g-2", 1), ("g-3", 1)] {
        observer.put("a", id, value);
    }
    observer.boundary();
    assert_eq!((observer.found.torn, observer.found.inverted), (0, 0));
    observer.put("a", "g-1", 2);
    observer.boundary();
    assert_eq!(observer.found.torn, 1, "two values");
    observer.put("a", "g-1", 1);
    assert_eq!(observer.found.inverted, 1);
    observer.delete("a", "g-2");
    observer.boundary();
    assert_eq!(observer.found.torn, 2, "one is missing");
    let source = BTreeMap::from([(("a".into(), "g-1".into()), 1), (("a".into(), "g-2".into()), 1)]);
    assert_eq!(observer.end(&source).lost, 2, "one is not there, one should not be");
}
