//! How a runnable block of a page is written.
//!
//! - The block is fenced with three backticks and marked `console run`.
//! - `$ ` begins a command; a `\` at its end continues it on the next line. All commands of a page run in one shell.
//! - Lines below a command are what it prints, in this order, with anything between and around them; `…` stands for
//!   anything within a line.
//! - A command that ends in `&` keeps running until the page ends. `# wait for: TEXT` behind the `&` holds the next
//!   command back until it has printed TEXT.

use std::path::{Path, PathBuf};

const FENCE: &str = "```";
const MARK: &str = "console run";
const PROMPT: &str = "$ ";
const WAIT_FOR: &str = "# wait for: ";

/// A file with the commands that are to be run.
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    pub(crate) steps: Vec<Step>,
}

/// One command and what it prints.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Where the page has it, counted from 1.
    pub(crate) line: usize,
    pub(crate) command: String,
    pub(crate) is_background: bool,
    pub(crate) wait_for: Option<String>,
    pub(crate) expected: Vec<String>,
}

impl Page {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("the page is readable text");
        let steps = parse(&text).unwrap_or_else(|fault| panic!("{}:{fault}", path.display()));
        Self { path: path.to_owned(), steps }
    }
}

/// All commands of a page's runnable blocks; a fault begins with its line.
pub(crate) fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((start, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix(FENCE) else { continue };
        let body = fenced(&mut lines).ok_or(format!("{start}: this block is not closed"))?;
        if info.trim() == MARK {
            steps.extend(parse_block(start, &body)?);
        }
    }
    Ok(steps)
}

type Line<'a> = (usize, &'a str);

/// The lines up to the closing fence.
fn fenced<'a>(lines: &mut impl Iterator<Item = Line<'a>>) -> Option<Vec<Line<'a>>> {
    let mut body = Vec::new();
    for (number, line) in lines {
        if line.trim() == FENCE {
            return Some(body);
        }
        body.push((number, line.trim()));
    }
    None
}

fn parse_block(start: usize, body: &[Line<'_>]) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = body.iter();
    while let Some((number, line)) = lines.next() {
        if let Some(first) = line.strip_prefix(PROMPT) {
            let mut command = first.to_owned();
            while command.ends_with('\\') {
                let (_number, next) = lines.next().ok_or(format!("{number}: this command goes on after the block"))?;
                command = format!("{command}\n{next}");
            }
            steps.push(Step::parse(*number, &command)?);
        } else if !line.is_empty() {
            let step = steps.last_mut().ok_or(format!("{number}: output before any command"))?;
            step.expected.push((*line).to_owned());
        }
    }
    if steps.is_empty() { Err(format!("{start}: no command in a block marked `{MARK}`")) } else { Ok(steps) }
}

impl Step {
    fn parse(line: usize, text: &str) -> Result<Self, String> {
        let (command, wait_for) = match text.split_once(WAIT_FOR) {
            Some((command, text)) => (command.trim_end(), Some(text.trim().to_owned())),
            None => (text.trim_end(), None),
        };
        let without_and = command.strip_suffix('&').filter(|rest| !rest.ends_with('&'));
        if wait_for.is_some() && without_and.is_none() {
            return Err(format!("{line}: only a command that ends in & can be waited for"));
        }
        let command = without_and.unwrap_or(command).trim_end().to_owned();
        Ok(Self { line, command, is_background: without_and.is_some(), wait_for, expected: Vec::new() })
    }
}

/// The first expected line that the output does not have after those before it.
pub(crate) fn first_missing<'a>(output: &[String], expected: &'a [String]) -> Option<&'a str> {
    let mut rest = output.iter();
    let missing = expected.iter().find(|pattern| !rest.any(|line| line_matches(line, pattern)));
    missing.map(String::as_str)
}

/// Whether the parts between `…` occur in the line, one after the other.
fn line_matches(line: &str, pattern: &str) -> bool {
    let mut rest = line;
    pattern.split('…').map(str::trim).all(|part| match rest.split_once(part) {
        Some((_before, after)) => {
            rest = after;
            true
        }
        None => part.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn commands_and_outputs_are_read() {
        let page = "# A\n```console\n$ not this\n```\n\n- b:\n\n  ```console run\n  $ serve \\\n    --env dev & # wait for: ready at\n  \
                    listening\n\n  $ a && b\n  ```\n";
        let steps = parse(page).expect("the page is well written");
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[0].command, "serve \\\n--env dev");
        assert_eq!((steps[0].line, steps[0].is_background), (9, true));
        assert_eq!(steps[0].wait_for.as_deref(), Some("ready at"));
        assert_eq!(steps[0].expected, ["listening"]);
        assert_eq!((steps[1].command.as_str(), steps[1].is_background), ("a && b", false));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (page, line) in [
            ("```console run\n$ a\n", "1: "),
            ("x\n```console run\n```\n", "2: "),
            ("```console run\nout\n$ a\n```\n", "2: "),
            ("```console run\n$ a # wait for: b\n```\n", "2: "),
            ("```console run\n$ a \\\n```\n", "2: "),
        ] {
            let fault = parse(page).expect_err(page);
            assert!(fault.starts_with(line), "{page}: {fault}");
        }
    }

    #[test]
    fn output_must_come_in_order() {
        let output = strings(&["wrote token abc to file", "ready at 80", "ready at 81"]);
        assert_eq!(first_missing(&output, &strings(&["token … file", "ready", "…81"])), None);
        assert_eq!(first_missing(&output, &strings(&["ready", "token"])), Some("token"));
        assert_eq!(first_missing(&output, &strings(&["file … token"])), Some("file … token"));
        assert_eq!(first_missing(&output, &strings(&["ready at 8", "ready", "ready"])), Some("ready"));
    }
}
