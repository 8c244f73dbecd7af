//! Words that must not stand in a tracked file, or not without an explanation.

use super::code;
use super::project::{Finding, Project, Source};

/// Directories of one machine. Spelled in pieces, so that this file does not name them itself.
const MACHINE_DIRECTORIES: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
/// The host of a package registry is one of these, a name, and one of the endings.
const REGISTRY_HOSTS: &[&str] = &["registry", "index", "static", "files"];
const REGISTRY_ENDINGS: &[&str] = &["io", "org"];
/// Written by package managers, which put hosts there.
const LOCK_FILES: &[&str] = &["Cargo.lock", "package-lock.json"];

/// Notes to oneself; each needs its reason in brackets.
const NOTES: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];

/// Lines that name a directory or a package registry of the machine they were written on.
pub(super) fn machine_words(project: &Project) -> Vec<Finding> {
    let named = |line: &str| machine_directory(line).or_else(|| registry_host(line));
    let is_lock = |file: &&Source| LOCK_FILES.iter().any(|lock| file.path.ends_with(lock));
    find_lines(project.files.iter().filter(|file| !is_lock(file)), named)
}

/// Notes to oneself that do not say why they can wait: the form is `NOTE(reason): what`.
pub(super) fn unexplained_todos(project: &Project) -> Vec<Finding> {
    let note = |line: &str| {
        let unexplained = code::words(line).find(|(at, word)| NOTES.contains(word) && !is_explained(&line[at + word.len()..]));
        unexplained.map(|(_at, word)| format!("`{word}` without `(why it can wait)` behind it"))
    };
    find_lines(project.files.iter().filter(|file| !LOCK_FILES.iter().any(|lock| file.path.ends_with(lock))), note)
}

fn find_lines<'a>(files: impl Iterator<Item = &'a Source>, find: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        for (line, text) in (1..).zip(file.text.lines()) {
            if let Some(what) = find(text) {
                findings.push(Finding::at(&file.path, line, what));
            }
        }
    }
    findings
}

/// An absolute path into a machine's own directories, not a part of a longer path or address.
fn machine_directory(line: &str) -> Option<String> {
    let begins = |at: usize| !line[..at].ends_with(|c: char| code::is_word(c) || matches!(c, '.' | '-' | '~' | '}'));
    let is_named = |directory: &&&str| line.match_indices(**directory).any(|(at, _text)| begins(at));
    MACHINE_DIRECTORIES.iter().find(is_named).map(|directory| format!("`{directory}` exists on one machine only"))
}

fn registry_host(line: &str) -> Option<String> {
    for host in REGISTRY_HOSTS {
        for (at, _text) in line.match_indices(host) {
            let Some(rest) = line[at + host.len()..].strip_prefix('.') else { continue };
            let Some((name, ending)) = rest.split_once('.') else { continue };
            let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            if is_name && REGISTRY_ENDINGS.iter().any(|known| ending.starts_with(known)) {
                return Some(format!("`{host}.{name}.…` is a package registry's host"));
            }
        }
    }
    None
}

fn is_explained(after: &str) -> bool {
    let reason = after.strip_prefix('(').and_then(|rest| rest.split_once("):"));
    reason.is_some_and(|(reason, _what)| reason.trim().contains(' '))
}

#[cfg(test)]
mod tests {
    use super::super::project::examples::{files, lines};
    use super::*;

    fn machine(path: &str, text: &str) -> usize {
        machine_words(&files(&[(path, text)])).len()
    }

    #[test]
    fn machine_paths_are_found() {
        for directory in MACHINE_DIRECTORIES {
            assert_eq!(machine("docs/a.md", &format!("run {directory}main/x")), 1, "{directory}");
            assert_eq!(machine("docs/a.md", &format!("see crates{directory}main")), 0, "part of a longer path");
        }
        let project = files(&[("a.sh", &format!("a\nb \"{}b\"", MACHINE_DIRECTORIES[0]))]);
        assert!(lines(&machine_words(&project))[0].starts_with("a.sh:2: "));
    }

    #[test]
    fn registry_hosts_are_found() {
        for host in REGISTRY_HOSTS {
            for ending in REGISTRY_ENDINGS {
                let text = format!("https://{host}.some-name.{ending}/x");
                assert_eq!(machine("a.toml", &text), 1, "{text}");
                assert_eq!(machine("Cargo.lock", &text), 0);
                assert_eq!(machine("web/package-lock.json", &text), 0);
            }
        }
        assert_eq!(machine("a.rs", "self.index.io; registry.len(); index.Name.io; index..io"), 0);
    }

    #[test]
    fn a_note_needs_a_reason() {
        for note in NOTES {
            let count = |text: String| unexplained_todos(&files(&[("a.rs", &text)])).len();
            assert_eq!(count(format!("// {note}: later")), 1);
            assert_eq!(count(format!("// {note}(me): later")), 1);
            assert_eq!(count(format!("// {note}(needs the new codec): decode it")), 0);
            assert_eq!(count(format!("let {note}_LIST = 1;")), 0, "a longer word");
        }
    }
}
