//! `device dead-letters`: rejected operations, on a till's own database or on the server's desk.

use std::{io::Read as _, path::Path};

use mstore_client::{CommitError, Journal};
use mstore_protocol::{OperationId, OperationKind};
use serde_json::{Value, json};

use super::journal::open;
use crate::{
    api::{AdminApi, encode},
    args::{Letter, LetterAction, Where},
    failure::Failure,
    table,
};

pub(super) async fn run(action: LetterAction) -> Result<(), Failure> {
    match action {
        LetterAction::List { at, branch, till, json } => {
            let letters = match &at.db {
                Some(db) => of_till(&open(db)?)?,
                None => of_server(&at, branch.as_deref(), till.as_deref()).await?,
            };
            print(&letters, json);
            Ok(())
        }
        LetterAction::Retry(letter) => {
            let retry = |journal: &mut Journal, id| journal.retry(id).map(|made| Some(made.id)).map_err(failed);
            decide(&letter, "retry", json!({ "reason": letter.reason }), retry).await
        }
        LetterAction::Edit { letter, operation } => {
            let operation = read(&operation)?;
            let kind = operation.clone();
            let edit = move |journal: &mut Journal, id| {
                let kind: OperationKind =
                    serde_json::from_value(kind).map_err(|error| Failure::usage(format!("not an operation: {error}")))?;
                journal.edit(id, kind).map(|made| Some(made.id)).map_err(failed)
            };
            decide(&letter, "edit", json!({ "operation": operation, "reason": letter.reason }), edit).await
        }
        LetterAction::Discard(letter) => {
            let discard = |journal: &mut Journal, id| journal.discard(id).map(|()| None).map_err(failed);
            decide(&letter, "discard", json!({ "reason": letter.reason }), discard).await
        }
    }
}

fn failed(error: CommitError) -> Failure {
    Failure::check(error.to_string()).next("mstore-sync device dead-letters list shows what may be decided about")
}

fn of_till(journal: &Journal) -> Result<Vec<Value>, Failure> {
    let letters = journal.dead_letters().map_err(failed)?;
    let letter = letters.into_iter().map(|letter| {
        json!({
            "id": letter.operation.id, "device_seq": letter.operation.device_seq, "type": letter.operation.kind.as_str(),
            "code": letter.code, "detail": letter.detail, "body": letter.operation, "next": letter.code.map(mstore_protocol::Code::next_step),
        })
    });
    Ok(letter.collect())
}

async fn of_server(at: &Where, branch: Option<&str>, till: Option<&str>) -> Result<Vec<Value>, Failure> {
    let filter = |name: &str, value: Option<&str>| value.map_or_else(String::new, |value| format!("&{name}={}", encode(value)));
    let path = format!("{}?decided_too=false{}{}", base(at), filter("branch", branch), filter("device", till));
    AdminApi::from_args(&at.admin)?.list_all(&path).await
}

fn base(at: &Where) -> String {
    format!("/v1/admin/merchants/{}/dead-letters", encode(at.merchant.as_deref().unwrap_or_default()))
}

#[allow(clippy::print_stdout)]
fn print(letters: &[Value], json: bool) {
    if json {
        println!("{}", Value::Array(letters.to_vec()));
        return;
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let rows: Vec<Vec<String>> = letters
        .iter()
        .map(|letter| {
            let receipt = letter["body"]["receipt_no"].as_str().unwrap_or("-").to_owned();
            let number = text(&letter["device_seq"]);
            vec![text(&letter["id"]), text(&letter["type"]), number, receipt, text(&letter["code"]), text(&letter["detail"])]
        })
        .collect();
    println!("{}", table::render(&["operation", "type", "number", "receipt", "code", "why"], &rows));
    println!("{} rejected operations", rows.len());
}

/// Decides on the till's database or at the server, and says what came of it.
#[allow(clippy::print_stdout)]
async fn decide(
    letter: &Letter,
    verb: &str,
    body: Value,
    at_till: impl FnOnce(&mut Journal, OperationId) -> Result<Option<OperationId>, Failure>,
) -> Result<(), Failure> {
    let raw = &letter.id;
    let id = OperationId::parse(raw).ok_or_else(|| Failure::usage(format!("{raw:?} is not an operation id")))?;
    if let Some(db) = &letter.at.db {
        match at_till(&mut open(db)?, id)? {
            Some(new) => println!("{verb} {id}: {new} takes its place; it is sent when the till runs next"),
            None => println!("{verb} {id}: done; the server hears of it when the till runs next"),
        }
        return Ok(());
    }
    let path = format!("{}/{id}/{verb}", base(&letter.at));
    let answer = AdminApi::from_args(&letter.at.admin)?.post(&path, &body).await?;
    match answer["decision"]["replaced_by"].as_str() {
        Some(new) => println!("{verb} {id}: {new} takes its place, commit {}", answer["verdict"]["seq"]),
        None => println!("{verb} {id}: done"),
    }
    Ok(())
}

fn read(path: &Path) -> Result<Value, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(path).map(|found| text = found)
    };
    read.map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{}: not JSON: {error}", path.display())))
}
