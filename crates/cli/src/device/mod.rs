//! `device`: the life of a till as an administrator leads it, and `device run`, a till on this terminal.

mod claim_picture;
mod command;
mod dead_letters;
mod journal;
mod run;
mod said;
mod screen;

use std::{io::IsTerminal as _, path::Path};

use claim_picture::Picture;
use mstore_protocol::{BranchId, BranchKey, ClaimLink};
use serde_json::{Value, json};

use crate::{
    api::{AdminApi, encode},
    args::{AdminArgs, DeviceAction, DeviceArgs},
    failure::Failure,
    private_file,
    shop::branch_key,
    table,
};

pub(crate) async fn run(args: DeviceArgs) -> Result<(), Failure> {
    match args.action {
        DeviceAction::Add { branch, id, name, qr, png, admin, json } => {
            let claim = claim(&branch, id, &name, &admin).await?;
            show(&claim, &admin.server, (qr, png.as_deref()), json)
        }
        DeviceAction::List { branch, admin, json } => list(branch.as_deref(), &admin, json).await,
        DeviceAction::Rotate { id, admin } => {
            act(&id, "rotate", &json!({}), &admin, "the till must be given this token, or enrol again with a claim code").await
        }
        DeviceAction::Revoke { id, admin } => act(&id, "revoke", &json!({}), &admin, "connection closed, credential gone").await,
        DeviceAction::Lost { id, admin, json } => lose(&id, &admin, json).await,
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

/// A claim code as the server made it.
struct Claim {
    key: BranchKey,
    link: ClaimLink,
    answer: Value,
}

async fn claim(branch: &str, id: Option<String>, name: &str, admin: &AdminArgs) -> Result<Claim, Failure> {
    let key = branch_key(branch)?;
    let body = json!({ "merchant": key.merchant, "branch": key.branch, "device_id": id, "name": name });
    let mut answer = AdminApi::from_args(admin)?.post("/v1/admin/devices", &body).await?;
    let code = answer["code"].as_str().unwrap_or_default().to_owned();
    // What the server says of itself; the address that this command used may be a way that tills do not have.
    let server = answer["enrol_url"].as_str().and_then(|url| url.strip_suffix("/v1/devices/enrol")).unwrap_or(&admin.server).to_owned();
    let link = ClaimLink { server, code };
    answer["qr_text"] = link.to_string().into();
    Ok(Claim { key, link, answer })
}

#[allow(clippy::print_stdout)]
fn show(Claim { key, link, answer }: &Claim, server: &str, (qr, png): (bool, Option<&Path>), json: bool) -> Result<(), Failure> {
    let picture = Picture::of(link)?;
    if let Some(file) = png {
        private_file::write(file, &picture.to_png()?)?;
    }
    if json {
        println!("{answer}");
        return Ok(());
    }
    println!("till {} of {key}", answer["device_id"].as_str().unwrap_or_default());
    println!("claim code {}, good until {}", link.code, answer["expires_at"].as_str().unwrap_or_default());
    if qr || std::io::stdout().is_terminal() {
        print!("{}", picture.to_text());
    }
    if let Some(file) = png {
        println!("QR code in {}", file.display());
    }
    println!("next: mstore-sync device run --server {server} --db till.db --claim {}", link.code);
    Ok(())
}

#[allow(clippy::print_stdout)]
async fn lose(id: &str, admin: &AdminArgs, json: bool) -> Result<(), Failure> {
    let lost = AdminApi::from_args(admin)?.post(&format!("/v1/admin/devices/{}/lost", encode(id)), &json!({})).await?;
    if json {
        println!("{lost}");
        return Ok(());
    }
    println!("lost {id}: connection closed, credential gone");
    let reported = lost["reported_at"].as_str().map_or_else(
        || "it never reported: what it held nobody knows".to_owned(),
        |at| format!("when it reported last, at {at}, it had {} operations that were not sent", lost["unsent"]),
    );
    println!("{reported}");
    for journal in lost["journals"].as_array().into_iter().flatten() {
        let (id, at) = (journal["journal_id"].as_str().unwrap_or_default(), journal["at"].as_str().unwrap_or_default());
        println!("journal {id}: everything up to number {} may be here, the last came at {at}", journal["device_seq"]);
    }
    println!("next: {}", lost["next"].as_str().unwrap_or_default());
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
