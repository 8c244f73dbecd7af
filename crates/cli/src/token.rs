//! `token`: admin tokens as an operator leads them. A token's text is shown once, or written into a file.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{
    api::{AdminApi, encode},
    args::{AdminArgs, Role, TokenAction, TokenArgs},
    failure::Failure,
    private_file, table,
};

pub(crate) async fn run(args: TokenArgs) -> Result<(), Failure> {
    match args.action {
        TokenAction::Add { name, role, merchant, expires, out, admin } => {
            let role = match role {
                Role::Platform => "platform",
                Role::Merchant => "merchant",
                Role::ReadOnly => "read_only",
            };
            let body = json!({ "name": name, "role": role, "merchant": merchant, "expires_in_s": expires.map(|time| time.as_secs()) });
            let made = AdminApi::from_args(&admin)?.post("/v1/admin/tokens", &body).await?;
            let until = made["expires_at"].as_str().map_or_else(|| "without end".to_owned(), |at| format!("until {at}"));
            say(&format!("token {name} ({role}), good {until}"));
            hand_over(&made, out.as_deref())
        }
        TokenAction::List { admin, json } => list(&admin, json).await,
        TokenAction::Rotate { name, overlap, out, admin } => rotate(name.as_deref(), overlap, out.as_deref(), &admin).await,
        TokenAction::Revoke { name, admin } => {
            AdminApi::from_args(&admin)?.post(&format!("/v1/admin/tokens/{}/revoke", encode(&name)), &json!({})).await?;
            say(&format!("token {name} is revoked: it opens nothing any more"));
            Ok(())
        }
    }
}

async fn rotate(name: Option<&str>, overlap: Option<Duration>, out: Option<&Path>, admin: &AdminArgs) -> Result<(), Failure> {
    let path = name.map_or_else(|| "/v1/admin/token/rotate".to_owned(), |name| format!("/v1/admin/tokens/{}/rotate", encode(name)));
    let rotated = AdminApi::from_args(admin)?.post(&path, &json!({ "overlap_s": overlap.map(|time| time.as_secs()) })).await?;
    let ends =
        rotated["old_until"].as_str().map_or_else(|| "ends at the first use of the new one".to_owned(), |at| format!("works until {at}"));
    say(&format!("token {} has another text; the old one {ends}", rotated["name"].as_str().unwrap_or_default()));
    let own_file = (rotated["own"] == true && !AdminApi::has_token_in_environment()).then_some(&*admin.admin_token_file);
    hand_over(&rotated, out.or(own_file))
}

/// Into a file, or to whoever looks.
fn hand_over(made: &Value, file: Option<&Path>) -> Result<(), Failure> {
    let token = made["token"].as_str().unwrap_or_default();
    match file {
        Some(file) => {
            private_file::write(file, format!("{token}\n").as_bytes())
                .map_err(|failure| failure.next("the old token still works: rotate it again, with --out and another file"))?;
            say(&format!("it is in {}", file.display()));
        }
        None => say(&format!("{token}\nkeep it now: the server has its hash only, and nobody can show it again")),
    }
    Ok(())
}

async fn list(admin: &AdminArgs, json: bool) -> Result<(), Failure> {
    let tokens: Value = AdminApi::from_args(admin)?.get("/v1/admin/tokens").await?;
    if json {
        say(&tokens["items"].to_string());
        return Ok(());
    }
    let items = tokens["items"].as_array().cloned().unwrap_or_default();
    let columns = ["name", "role", "merchant", "created_at", "rotated_at", "expires_at", "revoked_at"];
    say(&table::of(&columns, &items));
    Ok(())
}

#[allow(clippy::print_stdout)]
fn say(what: &str) {
    println!("{what}");
}
