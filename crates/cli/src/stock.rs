//! `stock`: what a manager wants to know of the books: exceptions, goods in transit, whether transfers add up.

use serde_json::{Value, json};

use crate::{
    api::{AdminApi, encode},
    args::{StockAction, StockArgs},
    failure::Failure,
    shop::branch_key,
    table,
};

pub(crate) async fn run(args: StockArgs) -> Result<(), Failure> {
    let api = AdminApi::from_args(&args.admin)?;
    match args.action {
        StockAction::Oversells { merchant, branch, all, json } => {
            let columns = ["n", "branch", "item_id", "quantity", "stock_after", "stock_now", "receipt_no", "device", "recorded_at", "note"];
            list(&api, &listing(&merchant, "oversells", branch.as_deref(), all), &columns, json).await
        }
        StockAction::Settle { merchant, n, note } => {
            api.post(&format!("{}/oversells/{n}/settle", of(&merchant)), &json!({ "note": note })).await?;
            say(&format!("exception {n} is settled; it moved no stock"));
            Ok(())
        }
        StockAction::Transfers { merchant, branch, all, json } => {
            let columns = ["id", "from_branch", "to_branch", "collection", "item_id", "quantity", "sent_at", "arrived_at"];
            list(&api, &listing(&merchant, "transfers", branch.as_deref(), all), &columns, json).await
        }
        StockAction::Receive { branch, id } => {
            let key = branch_key(&branch)?;
            let path = format!("{}/branches/{}/transfers/{}/receive", of(key.merchant.as_str()), key.branch, encode(&id));
            let answer = api.post(&path, &json!({})).await?;
            say(if answer["duplicate"] == true { "received before; nothing moved" } else { "received" });
            Ok(())
        }
        StockAction::Arrival { merchant, arrival } => {
            let arrival = match arrival {
                crate::args::Arrival::AtOnce => "at_once",
                crate::args::Arrival::OnReceipt => "on_receipt",
            };
            api.put(&format!("{}/transfer-arrival", of(&merchant)), &json!({ "arrival": arrival })).await?;
            say(&format!("transfers of {merchant} arrive {arrival}"));
            Ok(())
        }
        StockAction::Balance { merchant } => balance(&api, &merchant).await,
    }
}

fn of(merchant: &str) -> String {
    format!("/v1/admin/merchants/{}", encode(merchant))
}

fn listing(merchant: &str, what: &str, branch: Option<&str>, settled_too: bool) -> String {
    let branch = branch.map_or_else(String::new, |branch| format!("&branch={}", encode(branch)));
    format!("{}/{what}?settled_too={settled_too}{branch}", of(merchant))
}

#[allow(clippy::print_stdout)]
fn say(what: &str) {
    println!("{what}");
}

async fn list(api: &AdminApi, path: &str, columns: &[&str], json: bool) -> Result<(), Failure> {
    let items = api.list_all(path).await?;
    if json {
        say(&Value::Array(items).to_string());
        return Ok(());
    }
    say(&table::of(columns, &items));
    say(&format!("{} in all", items.len()));
    Ok(())
}

async fn balance(api: &AdminApi, merchant: &str) -> Result<(), Failure> {
    let balance: Value = api.get(&format!("{}/transfers/balance", of(merchant))).await?;
    let differing = balance["differing"].as_array().cloned().unwrap_or_default();
    if balance["is_balanced"] == true {
        say("transfers and goods in transit come to nothing: balanced");
        return Ok(());
    }
    let items: Vec<String> = differing.iter().map(|item| format!("{} ({})", item["item_id"], item["difference"])).collect();
    Err(Failure::check(format!("transfers do not add up for {}", items.join(", ")))
        .next("look for movements of type transfer that another program wrote"))
}
