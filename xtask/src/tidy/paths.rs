//! The paths into `std` that a piece of code names, with grouped imports spelled out.

use super::code;

/// Every path that begins with `std` or `core`, spelled with `::` and starting with `std`, and the byte where it stands.
pub(super) fn std_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, word) in code::words(code) {
        let rest = &code[at + word.len()..];
        if matches!(word, "std" | "core") && rest.trim_start().starts_with("::") {
            expand(&code[at + word.len()..], "std".to_owned(), &mut |path| found.push((at, path)));
        }
    }
    found
}

/// Reads what follows a path's first segments: `::name`, `::{a, b::c}`, or its end.
fn expand(rest: &str, prefix: String, found: &mut impl FnMut(String)) {
    let Some(tail) = rest.trim_start().strip_prefix("::") else {
        return found(prefix);
    };
    let tail = tail.trim_start();
    if let Some(group) = tail.strip_prefix('{') {
        for item in group_items(group) {
            let (name, after) = segment(item.trim_start());
            expand(after, format!("{prefix}::{name}"), found);
        }
    } else {
        let (name, after) = segment(tail);
        expand(after, format!("{prefix}::{name}"), found);
    }
}

fn segment(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c| !code::is_word(c)).unwrap_or(text.len()))
}

/// The items of a group up to its closing brace, split at the commas that are not in an inner group.
fn group_items(group: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&group[start..at]);
                start = at + 1;
            }
            _other => {}
        }
    }
    items.retain(|item| !item.trim().is_empty());
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(code: &str) -> Vec<String> {
        std_paths(code).into_iter().map(|(_at, path)| path).collect()
    }

    #[test]
    fn plain_paths() {
        assert_eq!(paths("std::time::Instant::now()"), ["std::time::Instant::now"]);
        assert_eq!(paths("use core::fmt;"), ["std::fmt"]);
        assert!(paths("my_std::fs; std + 1").is_empty());
    }

    #[test]
    fn groups_are_spelled_out() {
        let code = "use std::{\n fs,\n time::{Duration, Instant as Moment},\n collections::BTreeMap,\n};";
        let all = ["std::fs", "std::time::Duration", "std::time::Instant", "std::collections::BTreeMap"];
        assert_eq!(paths(code), all);
    }
}
