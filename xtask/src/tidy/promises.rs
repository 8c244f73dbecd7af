//! The table of faults in the docs says how each was tested: a test that it names must exist.

use super::code;
use super::project::{Finding, Project};

const TABLE: &str = "docs/src/what-can-go-wrong.md";

/// Names in the last column of the table that are no function of any Rust file.
pub(super) fn missing_tests(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in project.files.iter().filter(|file| file.path == TABLE) {
        let rows = (1..).zip(file.text.lines()).filter(|(_line, text)| text.starts_with('|'));
        for (line, name) in rows.flat_map(|(line, text)| last_cell(text).map(move |name| (line, name))) {
            if !is_function(project, name) {
                findings.push(Finding::at(&file.path, line, format!("no test is called {name}")));
            }
        }
    }
    findings
}

/// The words in backticks that can be the name of a test.
fn last_cell(row: &str) -> impl Iterator<Item = &str> {
    let cell = row.trim_end().trim_end_matches('|').rsplit('|').next().unwrap_or("");
    let is_name = |word: &&str| word.contains('_') && word.chars().all(code::is_word);
    cell.split('`').skip(1).step_by(2).filter(is_name)
}

fn is_function(project: &Project, name: &str) -> bool {
    let declared = format!("fn {name}(");
    project.files.iter().any(|file| file.extension() == "rs" && file.code.contains(&declared))
}

#[cfg(test)]
mod tests {
    use super::super::project::examples::{files, lines};
    use super::*;

    #[test]
    fn a_test_that_is_named_exists() {
        let table = "| fault | tested |\n|---|---|\n| a `b_c` | `it_holds`, `it_is_gone`, `cargo x_y` |\n";
        let project = files(&[(TABLE, table), ("crates/a/tests/b.rs", "fn it_holds() {}\n// fn it_is_gone() {}\n")]);
        assert_eq!(lines(&missing_tests(&project)), ["docs/src/what-can-go-wrong.md:3: no test is called it_is_gone"]);
    }
}
