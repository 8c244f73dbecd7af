//! The test vectors in `golden/` are read by programs in every language: each must be JSON, to the last line.

use serde::de::IgnoredAny;

use super::project::{Finding, Project};

/// JSON files in `golden/`, and lines of its NDJSON files, that do not parse.
pub(super) fn unreadable(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in project.files.iter().filter(|file| file.path.starts_with("golden/")) {
        match file.extension() {
            "json" => findings.extend(fault(&file.path, 0, &file.text)),
            "ndjson" | "jsonl" => {
                let lines = (1..).zip(file.text.lines());
                findings.extend(lines.filter_map(|(line, text)| fault(&file.path, line, text)));
            }
            _other => {}
        }
    }
    findings
}

fn fault(path: &str, line: usize, text: &str) -> Option<Finding> {
    let fault = serde_json::from_str::<IgnoredAny>(text).err()?;
    Some(Finding::at(path, if line == 0 { fault.line() } else { line }, fault.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::project::examples::{files, lines};
    use super::*;

    #[test]
    fn broken_vectors_are_named() {
        let project = files(&[
            ("golden/good.json", "{\"v\":1}\n"),
            ("golden/bad.json", "{\n\"v\":}\n"),
            ("golden/rows.ndjson", "{}\n{\n"),
            ("examples/other.json", "{"),
            ("golden/README.md", "{"),
        ]);
        let found = lines(&unreadable(&project));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("golden/bad.json:2: "), "{found:?}");
        assert!(found[1].starts_with("golden/rows.ndjson:2: "), "{found:?}");
    }
}
