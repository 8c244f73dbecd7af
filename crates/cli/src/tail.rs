//! `tail`: watches what is published, live and decoded, with filters.

use futures_util::StreamExt as _;
use serde_json::Value;

use crate::{api::AdminApi, args::TailArgs, failure::Failure, shop::branch_key};

pub(crate) async fn run(args: TailArgs) -> Result<(), Failure> {
    let mut path = "/v1/admin/tail".to_owned();
    if let Some(branch) = &args.branch {
        let key = branch_key(branch)?;
        path = format!("{path}?merchant={}&branch={}", key.merchant, key.branch);
    }
    let response = AdminApi::from_args(&args.admin)?.stream(&path).await?;
    if !args.json {
        say(&format!("{:<24} {:<26} {:<24} {:>7}  change", "at", "branch", "type", "seq"));
    }
    let mut lines = Lines::default();
    let mut body = response.bytes_stream();
    let mut shown = 0;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| Failure::unavailable(format!("the server went away: {error}")))?;
        for line in lines.push(&chunk) {
            let Ok(message) = serde_json::from_slice::<Value>(&line) else { continue };
            if !wanted(&args, &message) {
                continue;
            }
            show(&args, &message);
            shown += 1;
            if args.count.is_some_and(|count| shown >= count) {
                return Ok(());
            }
        }
    }
    Err(Failure::unavailable("the server ended the stream").next("start tail again"))
}

#[allow(clippy::print_stdout)]
fn say(text: &str) {
    use std::io::Write as _;
    // A reader that went away (`| head`) ends the tail at the next write; that is no error of ours.
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

fn wanted(args: &TailArgs, message: &Value) -> bool {
    let Some(frame) = message.get("frame") else { return args.heads && message.get("head").is_some() };
    let topic = message["topic"].as_str().unwrap_or_default();
    let in_collection = args.collection.as_ref().is_none_or(|collection| topic.ends_with(&format!("/{collection}/updates")));
    let of_type = args.frame_type.as_ref().is_none_or(|part| frame["type"].as_str().unwrap_or_default().contains(part.as_str()));
    let of_row = args.id.as_ref().is_none_or(|id| changes(frame).any(|change| change["id"].as_str() == Some(id)));
    in_collection && of_type && of_row
}

fn changes(frame: &Value) -> impl Iterator<Item = &Value> {
    frame["changes"].as_array().into_iter().flatten()
}

fn show(args: &TailArgs, message: &Value) {
    if args.json {
        return say(&message.to_string());
    }
    let topic = message["topic"].as_str().unwrap_or_default();
    let branch = topic.split('/').take(3).collect::<Vec<_>>().join("/");
    if let Some(head) = message.get("head") {
        return say(&format!("{:<24} {branch:<26} {:<24} {:>7}", head["at"].as_str().unwrap_or_default(), "head", head["seq"]));
    }
    let frame = &message["frame"];
    let left = format!(
        "{:<24} {branch:<26} {:<24} {:>7}",
        frame["at"].as_str().unwrap_or_default(),
        frame["type"].as_str().unwrap_or_default(),
        frame["seq"]
    );
    let filtered: Vec<&Value> = changes(frame).filter(|change| args.id.is_none() || change["id"].as_str() == args.id.as_deref()).collect();
    for change in filtered.iter().take(5) {
        let row = change.get("row").map_or_else(String::new, ToString::to_string);
        let row: String = row.chars().take(100).collect();
        say(&format!("{left}  {} {} {row}", change["op"].as_str().unwrap_or_default(), change["id"].as_str().unwrap_or_default()));
    }
    if filtered.len() > 5 {
        say(&format!("{left}  … and {} more", filtered.len() - 5));
    }
}

/// Cuts a byte stream into lines; a line longer than a frame can be is dropped.
#[derive(Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    const LINE_BYTES_MAX: usize = 2 * mstore_protocol::limits::FRAME_BYTES_MAX;

    /// The lines that are whole now.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        self.rest.extend_from_slice(chunk);
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = self.rest.drain(..=end).collect();
            line.pop();
            lines.push(line);
        }
        if self.rest.len() > Self::LINE_BYTES_MAX {
            self.rest.clear();
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_whatever_the_chunks() {
        let mut lines = Lines::default();
        assert!(lines.push(b"{\"a\"").is_empty());
        assert_eq!(lines.push(b":1}\n{}\n{"), [b"{\"a\":1}".to_vec(), b"{}".to_vec()]);
    }
}
