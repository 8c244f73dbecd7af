//! What `device run` says: a sentence for people, an event for programs; the same thing either way.

use mstore_client::Committed;
use serde::Serialize;
use serde_json::{Map, Value};

/// An answer in both forms.
#[derive(Debug)]
pub(super) struct Said {
    /// For people; may be several lines.
    pub(super) line: String,
    /// For programs: one object, `event` says what it is.
    event: Map<String, Value>,
}

impl Said {
    pub(super) fn new(line: impl Into<String>, event: &str) -> Self {
        let event = Map::from_iter([("event".to_owned(), Value::from(event))]);
        Self { line: line.into(), event }
    }

    /// One more field of the event.
    pub(super) fn with(mut self, field: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).expect("what is said are plain values");
        self.event.insert(field.to_owned(), value);
        self
    }

    /// What is on disk now: whoever reads this event may rely on it.
    pub(super) fn with_committed(self, committed: &Committed) -> Self {
        self.with("operation", committed.id)
            .with("device_seq", committed.device_seq)
            .with("receipt_no", &committed.receipt_no)
            .with("total", committed.total)
            .with("occurred_at", committed.occurred_at)
    }

    /// Says it on stdout, a whole line at a time.
    #[allow(clippy::print_stdout)]
    pub(super) fn print(self, json: bool) {
        if json { println!("{}", Value::Object(self.event)) } else { println!("{}", self.line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_itself_and_holds_its_fields() {
        let said = Said::new("network switched on", "online").with("on", true);
        assert_eq!(Value::Object(said.event).to_string(), r#"{"event":"online","on":true}"#);
    }
}
