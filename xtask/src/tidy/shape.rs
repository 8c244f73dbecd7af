//! How large things may grow: files, functions, traits; and how a file begins and is called.

use std::path::Path;

use super::code;
use super::project::{Finding, Project, Source};

/// Half of the production files have at most this many lines.
const FILE_LINES_MEDIAN_MAX: usize = 150;
/// Nine tenths of the production files have at most this many lines.
const FILE_LINES_P90_MAX: usize = 450;
/// No file of code, tests included, has more lines.
const FILE_LINES_MAX: usize = 800;
/// Lines of code in a function's body: neither blank nor comment. Clippy counts alike.
const FUNCTION_LINES_MAX: usize = 70;
const TRAIT_METHODS_MAX: usize = 12;

/// The kinds of files that people write as code.
const CODE: &[&str] = &["rs", "ts", "tsx", "svelte", "sql", "css", "sh"];
/// Names that say nothing and therefore attract everything.
const DRAWERS: &[&str] = &["types", "utils", "util", "common", "helpers", "helper", "misc"];

/// The production files' sizes, for the closing line.
pub(super) fn summary(project: &Project) -> String {
    let (median, p90) = (percentile(project, 50), percentile(project, 90));
    format!("production files: median {median} lines, p90 {p90} lines")
}

pub(super) fn median_budget(project: &Project) -> Vec<Finding> {
    over_budget("median", percentile(project, 50), FILE_LINES_MEDIAN_MAX)
}

pub(super) fn p90_budget(project: &Project) -> Vec<Finding> {
    over_budget("90th percentile", percentile(project, 90), FILE_LINES_P90_MAX)
}

/// Files of code that are too long for anybody.
pub(super) fn long_files(project: &Project) -> Vec<Finding> {
    let code = project.files.iter().filter(|file| CODE.contains(&file.extension()));
    let long = code.filter(|file| file.line_count() > FILE_LINES_MAX);
    long.map(|file| Finding::whole(&file.path, format!("{} lines, at most {FILE_LINES_MAX}", file.line_count()))).collect()
}

/// Functions, tests included, whose body is too long.
pub(super) fn long_functions(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in project.rust() {
        for item in items(file, "fn") {
            let lines = body_lines(item.body);
            if lines > FUNCTION_LINES_MAX {
                let what = format!("fn {} has {lines} lines, at most {FUNCTION_LINES_MAX}", item.name);
                findings.push(Finding::at(&file.path, item.line, what));
            }
        }
    }
    findings
}

/// Traits with more methods than an implementation should have to write.
pub(super) fn wide_traits(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in project.rust() {
        for item in items(file, "trait") {
            let methods = own_functions(item.body);
            if methods > TRAIT_METHODS_MAX {
                let what = format!("trait {} has {methods} methods, at most {TRAIT_METHODS_MAX}", item.name);
                findings.push(Finding::at(&file.path, item.line, what));
            }
        }
    }
    findings
}

/// Rust files that do not begin with what they are for.
pub(super) fn missing_first_line(project: &Project) -> Vec<Finding> {
    let says_why = |file: &&Source| file.text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 8);
    let silent = project.rust().filter(|file| !says_why(file));
    silent.map(|file| Finding::at(&file.path, 1, "does not begin with `//! why it exists`")).collect()
}

/// Files whose name says nothing.
pub(super) fn drawers(project: &Project) -> Vec<Finding> {
    let is_drawer = |file: &&Source| {
        let stem = Path::new(&file.path).file_stem().unwrap_or_default();
        CODE.contains(&file.extension()) && DRAWERS.iter().any(|drawer| stem == *drawer)
    };
    let drawers = project.files.iter().filter(is_drawer);
    drawers.map(|file| Finding::whole(&file.path, "a drawer: name it after what is in it")).collect()
}

fn over_budget(what: &str, lines: usize, most: usize) -> Vec<Finding> {
    let text = || format!("{what} of {lines} lines, at most {most}");
    if lines > most { vec![Finding::whole("production files", text())] } else { Vec::new() }
}

/// Nearest rank: the smallest size that `percent` of the production files do not exceed; 0 without any.
fn percentile(project: &Project, percent: usize) -> usize {
    let mut sizes: Vec<usize> = project.production().map(Source::line_count).collect();
    sizes.sort_unstable();
    let rank = (sizes.len() * percent).div_ceil(100);
    rank.checked_sub(1).map_or(0, |at| sizes[at])
}

/// A named item with a body in braces.
struct Item<'a> {
    name: &'a str,
    line: usize,
    body: &'a str,
}

fn items<'a>(file: &'a Source, keyword: &str) -> Vec<Item<'a>> {
    let words: Vec<(usize, &str)> = code::words(&file.code).collect();
    let mut items = Vec::new();
    for pair in words.windows(2) {
        let ((at, word), (name_at, name)) = (pair[0], pair[1]);
        let is_declaration = word == keyword && file.code[at + word.len()..name_at].trim().is_empty();
        let after = name_at + name.len();
        let Some((open, close)) = code::block(&file.code[after..]).filter(|_block| is_declaration) else { continue };
        let body = &file.code[after + open + 1..after + close];
        items.push(Item { name, line: code::line_of(&file.code, at), body });
    }
    items
}

fn body_lines(body: &str) -> usize {
    body.lines().filter(|line| !line.trim().is_empty()).count()
}

/// The functions of a trait's body, not those inside its default methods.
fn own_functions(body: &str) -> usize {
    let mut count = 0;
    let mut rest = body;
    while let Some((at, _fn)) = code::words(rest).find(|(_at, word)| *word == "fn") {
        count += 1;
        let after = &rest[at + "fn".len()..];
        let end = match code::block(after) {
            Some((_open, close)) => close,
            None => after.find(';').unwrap_or(after.len()),
        };
        rest = &after[end.min(after.len())..];
    }
    count
}

#[cfg(test)]
mod tests {
    use super::super::project::examples::{files, lines};
    use super::*;

    fn file_of(lines: usize) -> String {
        "//! A file of some length.\n".repeat(lines)
    }

    #[test]
    fn sizes_have_budgets() {
        let (short, middle, long) = (file_of(100), file_of(151), file_of(451));
        let good = files(&[("crates/a/src/a.rs", &short), ("crates/a/src/b.rs", &short), ("crates/a/tests/c.rs", &long)]);
        assert!(median_budget(&good).is_empty() && p90_budget(&good).is_empty());
        assert_eq!(median_budget(&files(&[("crates/a/src/a.rs", &middle)])).len(), 1);
        assert_eq!(p90_budget(&files(&[("crates/a/src/a.rs", &short), ("crates/a/src/b.rs", &long)])).len(), 1);
        assert!(median_budget(&files(&[])).is_empty());
    }

    #[test]
    fn a_file_has_a_longest_length() {
        let (most, over) = (file_of(FILE_LINES_MAX), file_of(FILE_LINES_MAX + 1));
        let project = files(&[("crates/a/tests/a.rs", &most), ("web/src/b.ts", &over), ("golden/c.json", &over)]);
        assert_eq!(lines(&long_files(&project)), ["web/src/b.ts: 801 lines, at most 800"]);
    }

    #[test]
    fn a_function_has_a_longest_length() {
        let of = |statements: usize| {
            let body = "    // a word\n\n    step();\n".repeat(statements);
            format!("//! a\n\nimpl A {{\nfn long(a: [u8; 2]) -> u8 {{\n{body}}}\n}}")
        };
        assert!(long_functions(&files(&[("a.rs", &of(70))])).is_empty());
        let found = long_functions(&files(&[("a.rs", &of(71))]));
        assert_eq!(lines(&found), ["a.rs:4: fn long has 71 lines, at most 70"]);
    }

    #[test]
    fn a_trait_has_few_methods() {
        let of = |methods: usize| {
            let methods = "    fn a(&self);\n    async fn b() { fn inner() {} }\n".repeat(methods / 2);
            format!("trait Wide: Send {{\n{methods}}}\nfn outside() {{}}")
        };
        assert!(wide_traits(&files(&[("a.rs", &of(12))])).is_empty());
        let found = wide_traits(&files(&[("a.rs", &of(14))]));
        assert_eq!(lines(&found), ["a.rs:1: trait Wide has 14 methods, at most 12"]);
    }

    #[test]
    fn a_file_begins_with_its_purpose() {
        let project = files(&[("a.rs", "//! Why it exists.\n"), ("b.rs", "//!\n"), ("c.rs", "use std::fmt;\n"), ("d.rs", "")]);
        assert_eq!(missing_first_line(&project).len(), 3);
    }

    #[test]
    fn a_drawer_is_named() {
        let project = files(&[("crates/a/src/utils.rs", ""), ("web/src/types.ts", ""), ("docs/common.md", ""), ("a/units.rs", "")]);
        let found = lines(&drawers(&project));
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
