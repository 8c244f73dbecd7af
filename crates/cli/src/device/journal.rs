//! `device export`, `hand-in`, `wipe`: the journal of a till that cannot reach its server, and the end of a till's database.

use std::path::Path;

use mstore_client::{Journal, OpenError, WipeError};
use mstore_protocol::{JournalFile, limits::OPERATIONS_PER_UPLOAD_MAX};
use serde_json::Value;

use crate::{
    api::{AdminApi, encode},
    args::AdminArgs,
    failure::Failure,
    table,
};

/// Bytes of operations in one request, below what a server takes.
const PART_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The journal in a till's database.
pub(super) fn open(db: &Path) -> Result<Journal, Failure> {
    Journal::open(db).map_err(|error| {
        let failure = Failure::usage(format!("{}: {error}", db.display()));
        if matches!(error, OpenError::NotEnrolled) { failure.next("give the database of an enrolled till with --db") } else { failure }
    })
}

#[allow(clippy::print_stdout)]
pub(super) fn export(db: &Path, out: &Path) -> Result<(), Failure> {
    let exported = open(db)?.export(out).map_err(|error| Failure::unavailable(error.to_string()))?;
    println!("{} operations, {} of them not sent, are in {}", exported.operations, exported.waiting, out.display());
    println!("next: mstore-sync device hand-in {}", out.display());
    Ok(())
}

#[allow(clippy::print_stdout)]
pub(super) fn wipe(db: &Path) -> Result<(), Failure> {
    open(db)?.wipe().map_err(|error| match error {
        WipeError::UnsentWork { .. } => Failure::check(error.to_string())
            .next(format!("run the till until it has sent everything, or: mstore-sync device export --db {} --out FILE", db.display())),
        WipeError::Io { .. } | WipeError::Db(_) => Failure::unavailable(error.to_string()),
    })?;
    println!("{} is gone; nothing in it was unsent", db.display());
    Ok(())
}

/// Hands a file in, in parts that a server takes. Fails if an operation was rejected: somebody must look at it.
#[allow(clippy::print_stdout)]
pub(super) async fn hand_in(file: &Path, admin: &AdminArgs) -> Result<(), Failure> {
    let text = std::fs::read(file).map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))?;
    let journal: JournalFile =
        serde_json::from_slice(&text).map_err(|error| Failure::usage(format!("{}: not a journal file: {error}", file.display())))?;
    let api = AdminApi::from_args(admin)?;
    let path = format!("/v1/admin/devices/{}/journal", encode(journal.device_id.as_str()));
    let mut verdicts = Vec::new();
    for part in parts(journal) {
        let answer = api.post(&path, &part).await?;
        verdicts.extend(answer["verdicts"].as_array().cloned().unwrap_or_default());
    }
    let count = |status: &str| verdicts.iter().filter(|verdict| verdict["status"] == status).count();
    let (accepted, duplicates, rejected) = (count("accepted"), count("duplicate"), count("rejected"));
    println!("{} operations: {accepted} accepted, {duplicates} known already, {rejected} rejected", verdicts.len());
    if rejected == 0 {
        return Ok(());
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let rows: Vec<Vec<String>> = verdicts
        .iter()
        .filter(|verdict| verdict["status"] == "rejected")
        .map(|verdict| vec![text(&verdict["id"]), text(&verdict["code"]), text(&verdict["detail"])])
        .collect();
    println!("{}", table::render(&["operation", "code", "why"], &rows));
    Err(Failure::check(format!("{rejected} operations were rejected")).next("mstore-sync device dead-letters list --merchant MERCHANT"))
}

fn parts(mut journal: JournalFile) -> Vec<JournalFile> {
    let operations = std::mem::take(&mut journal.operations);
    let mut parts: Vec<Vec<_>> = Vec::new();
    let mut bytes = 0;
    for operation in operations {
        let size = operation.get().len() + 1;
        let is_full = parts.last().is_none_or(|part| part.len() == OPERATIONS_PER_UPLOAD_MAX || bytes + size > PART_BYTES_MAX);
        if is_full {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.push(operation);
        }
    }
    parts.into_iter().map(|operations| JournalFile { operations, ..journal.clone() }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parts_hold_what_a_server_takes_and_all_of_it() {
        let operation = |n: usize| format!(r#"{{"n":{n},"text":"{}"}}"#, "x".repeat(if n > 1_000 { 1024 * 1024 } else { 10 }));
        let operations: Vec<String> = (0..1_007).map(operation).collect();
        let text = format!(
            r#"{{"format":"mstore-journal-1","device_id":"till","merchant":"m","branch":"b","journal_id":"j","exported_at":"2026-11-22T06:41:00.123Z","operations":[{}]}}"#,
            operations.join(",")
        );
        let parts = parts(serde_json::from_str(&text).unwrap());
        let sizes: Vec<usize> = parts.iter().map(|part| part.operations.len()).collect();
        assert_eq!(sizes, [500, 500, 4, 3]);
        let all: Vec<String> = parts.iter().flat_map(|part| part.operations.iter().map(|one| one.get().to_owned())).collect();
        assert_eq!(all, operations);
    }
}
