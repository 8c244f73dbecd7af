//! `device`: the life of a till as an administrator leads it, and `device run`, a till on this terminal.

mod command;
mod dead_letters;
mod journal;
mod run;
mod said;
mod screen;

use mstore_protocol::BranchId;
use serde_json::{Value, json};

use crate::{
    api::{AdminApi, encode},
    args::{AdminArgs, DeviceAction, DeviceArgs},
    failure::Failure,
    shop::branch_key,
    table,
};

pub(crate) async fn run(args: DeviceArgs) -> Result<(), Failure> {
    match args.action {
        DeviceAction::Add { branch, id, name, admin, json } => add(&branch, id, &name, &admin, json).await,
        DeviceAction::List { branch, admin, json } => list(branch.as_deref(), &admin, json).await,
        DeviceAction::Rotate { id, admin } => {
            act(&id, "rotate", &json!({}), &admin, "the till must be given this token, or enrol again with a claim code").await
        }
        DeviceAction::Revoke { id, admin } => act(&id, "revoke", &json!({}), &admin, "connection closed, credential gone").await,
        DeviceAction::Move { id, branch, admin } => {
            act(
                &id,
                "move",
                &to_branch(&branch)?,
                &admin,
                "make a claim code for it (mstore-sync device add MERCHANT/BRANCH --id TILL) and start the till with --claim",
            )
            .await
        }
        DeviceAction::DeadLetters { action } => dead_letters::run(action).await,
        DeviceAction::Export { db, out } => journal::export(&db, &out),
        DeviceAction::HandIn { file, admin } => journal::hand_in(&file, &admin).await,
        DeviceAction::Wipe { db } => journal::wipe(&db),
        DeviceAction::Run(args) => run::run(args).await,
    }
}

/// `b2`, or `m1/b2`: the server refuses another merchant than the till's.
fn to_branch(raw: &str) -> Result<Value, Failure> {
    if raw.contains('/') {
        let key = branch_key(raw)?;
        return Ok(json!({ "merchant": key.merchant, "branch": key.branch }));
    }
    let branch = BranchId::parse(raw).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(json!({ "branch": branch }))
}

#[allow(clippy::print_stdout)]
async fn add(branch: &str, id: Option<String>, name: &str, admin: &AdminArgs, json: bool) -> Result<(), Failure> {
    let key = branch_key(branch)?;
    let body = json!({ "merchant": key.merchant, "branch": key.branch, "device_id": id, "name": name });
    let claim = AdminApi::from_args(admin)?.post("/v1/admin/devices", &body).await?;
    if json {
        println!("{claim}");
        return Ok(());
    }
    let code = claim["code"].as_str().unwrap_or_default();
    println!("till {} of {key}", claim["device_id"].as_str().unwrap_or_default());
    println!("claim code {code}, good until {}", claim["expires_at"].as_str().unwrap_or_default());
    println!("next: mstore-sync device run --server {} --db till.db --claim {code}", admin.server);
    Ok(())
}

#[allow(clippy::print_stdout)]
async fn list(branch: Option<&str>, admin: &AdminArgs, json: bool) -> Result<(), Failure> {
    let api = AdminApi::from_args(admin)?;
    let path = match branch.map(branch_key).transpose()? {
        Some(key) => format!("/v1/admin/fleet?merchant={}&branch={}", key.merchant, key.branch),
        None => "/v1/admin/fleet".to_owned(),
    };
    let fleet = api.list_all(&path).await?;
    if json {
        println!("{}", Value::Array(fleet));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = fleet.iter().map(fleet_row).collect();
    println!("{}", table::render(&["device", "branch", "status", "state", "behind", "queue", "dead", "mended", "reported"], &rows));
    println!("{} devices", rows.len());
    Ok(())
}

fn fleet_row(device: &Value) -> Vec<String> {
    let report = &device["report"];
    let text =
        |value: &Value| if value.is_null() { "-".to_owned() } else { value.as_str().map_or_else(|| value.to_string(), str::to_owned) };
    vec![
        text(&device["device_id"]),
        format!("{}/{}", text(&device["merchant"]), text(&device["branch"])),
        text(&device["status"]),
        if report["code"].is_null() { text(&device["state"]) } else { format!("{}: {}", text(&device["state"]), text(&report["code"])) },
        text(&device["lag_commits"]),
        text(&report["queue_depth"]),
        text(&report["dead_letters"]),
        text(&device["digest_mismatches"]),
        device["reported_s_ago"].as_i64().map_or_else(|| "never".to_owned(), |seconds| format!("{seconds} s ago")),
    ]
}

#[allow(clippy::print_stdout)]
async fn act(id: &str, verb: &str, body: &Value, admin: &AdminArgs, what: &str) -> Result<(), Failure> {
    let answer = AdminApi::from_args(admin)?.post(&format!("/v1/admin/devices/{}/{verb}", encode(id)), body).await?;
    println!("{verb} {id}: done; {what}");
    if let Some(token) = answer["token"].as_str() {
        println!("token {token}");
    }
    Ok(())
}
