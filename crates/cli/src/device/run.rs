//! `device run`: a real till. On a terminal a live table and keys; in a pipe a line in, lines out.

use std::{io::IsTerminal as _, time::Duration};

use mstore_client::{Client, NewReceipt, OpenError, Options, Product, Query, Status};
use mstore_protocol::{Code, OperationKind, Quantity, StockAct, StockTarget, Transfer};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{
    command::{Command, HELP},
    said::Said,
    screen,
};
use crate::{args::RunArgs, failure::Failure, logging, shop::now};

/// How long `drain` waits.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);
/// How often `sync` looks whether the answer is there.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a till may take to show something for the first time before a line is carried out anyway.
const FIRST_SYNC_WITHIN: Duration = Duration::from_secs(30);

pub(crate) async fn run(args: RunArgs) -> Result<(), Failure> {
    logging::start(&std::env::var("MSTORE_LOG").unwrap_or_else(|_| "error".into()), false)?;
    let till = open(&args).await?;
    let on_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !args.json;
    let done = if on_terminal { screen::run(&till).await } else { lines(&till, args.json).await };
    till.close().await;
    done
}

/// Enrols with a claim: the first time, after the till was moved to another branch, or when its token was lost. Opens otherwise.
async fn open(args: &RunArgs) -> Result<Client, Failure> {
    let failed = |error: OpenError| {
        let next = match &error {
            OpenError::NotEnrolled => "mstore-sync device add MERCHANT/BRANCH gives a claim code; pass it with --claim",
            OpenError::Unreachable { .. } => "is the server running? mstore-sync serve",
            OpenError::Certificate { code, .. } => code.next_step(),
            OpenError::Authorities { .. } => "give --ca a PEM file; mstore-sync tls dev makes one for trying things out",
            OpenError::Insecure { .. } => "use an https:// address, or --profile development on a network that you trust",
            OpenError::UnsentWork { .. } => "start it again with the same --claim when the server can be reached",
            OpenError::Refused(_) | OpenError::OtherDevice { .. } | OpenError::Url { .. } | OpenError::Db(_) => {
                "check --server, --db and --claim"
            }
        };
        let failure = if error.code() == Some(Code::InsecureUrl) { Failure::usage } else { Failure::unavailable };
        failure(error.to_string()).next(next)
    };
    let options = || Options { profile: args.profile, ca_file: args.ca.clone(), ..Options::default() };
    let Some(code) = args.claim.as_deref() else {
        return Client::open(&args.db, options()).await.map_err(failed);
    };
    let mut enrolled = Client::enrol(&args.db, &args.server, code, options()).await;
    if matches!(enrolled, Err(OpenError::UnsentWork { .. })) {
        Said::new("sending what was done at the old branch first", "sending_old_work").print(args.json);
        let till = Client::open(&args.db, options()).await.map_err(failed)?;
        let sent = till.drain(DRAIN_WITHIN).await;
        till.close().await;
        sent.map_err(|error| Failure::unavailable(error.to_string()).next("start it again with the same --claim"))?;
        enrolled = Client::enrol(&args.db, &args.server, code, options()).await;
    }
    match enrolled {
        Ok(till) => {
            let enrolment = till.enrolment();
            let branch = format!("{}/{}", enrolment.merchant, enrolment.branch);
            Said::new(format!("enrolled as {} of {branch}", enrolment.device_id), "enrolled")
                .with("device", &enrolment.device_id)
                .with("branch", branch)
                .print(args.json);
            Ok(till)
        }
        // A claim that was used before, for a file that is enrolled: nothing to redeem.
        Err(OpenError::Refused(problem)) if problem.code == Code::ClaimRefused => {
            Client::open(&args.db, options()).await.map_err(|_| failed(OpenError::Refused(problem)))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Carries out one line after the other; with `json` every answer is an event, and so is every change of status.
async fn lines(till: &Client, json: bool) -> Result<(), Failure> {
    first_sync(till).await;
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let mut status = till.watch_status();
    status_said(&till.status()).print(json);
    loop {
        tokio::select! {
            line = input.next_line() => {
                let Ok(Some(line)) = line else { return Ok(()) };
                match Command::parse(&line) {
                    Ok(Command::Quit) => return Ok(()),
                    Ok(command) => answer(till, command).await.print(json),
                    Err(why) => Said::new(format!("? {why}"), "not_understood").with("detail", why).print(json),
                }
            }
            changed = status.changed(), if json => {
                if changed.is_err() {
                    return Ok(());
                }
                let now = status.borrow_and_update().clone();
                status_said(&now).print(json);
            }
        }
    }
}

async fn first_sync(till: &Client) {
    let mut status = till.watch_status();
    let shown = status.wait_for(|status| status.cursor.is_some());
    // A till without a network starts all the same.
    let _ = tokio::time::timeout(FIRST_SYNC_WITHIN, shown).await;
}

/// Does what the cashier asked; what to tell them.
pub(super) async fn act(till: &Client, command: Command) -> String {
    answer(till, command).await.line
}

async fn answer(till: &Client, command: Command) -> Said {
    match try_act(till, command).await {
        Ok(said) => said,
        Err(why) => Said::new(format!("! {why}"), "failed").with("detail", why.to_string()),
    }
}

async fn try_act(till: &Client, command: Command) -> Result<Said, Box<dyn std::error::Error + Send + Sync>> {
    Ok(match command {
        Command::Sell(id, quantity) => {
            let sale = till.commit_sale(NewReceipt::of([(id.as_str(), quantity)])).await?;
            let receipt = sale.receipt_no.clone().unwrap_or_default();
            let total = sale.total.map_or_else(String::new, |total| total.to_string());
            Said::new(format!("sold {quantity} of {id}: receipt {receipt}, {total}"), "sold").with_committed(&sale)
        }
        Command::TakeBack(id, quantity) => {
            let back = till.commit_return(NewReceipt::of([(id.as_str(), quantity)])).await?;
            let receipt = back.receipt_no.clone().unwrap_or_default();
            Said::new(format!("took back {quantity} of {id}: receipt {receipt}"), "took_back").with_committed(&back)
        }
        Command::Receive(id, quantity) => stock_act(till, OperationKind::Receive, id, quantity, "received").await?,
        Command::Adjust(id, quantity) => stock_act(till, OperationKind::Adjust, id, quantity, "correction").await?,
        Command::Count(id, quantity) => stock_act(till, OperationKind::Count, id, quantity, "stocktake").await?,
        Command::Transfer(item_id, quantity, to_branch) => {
            let said = format!("sent {quantity} of {item_id} to {to_branch}");
            let act = StockAct { collection: target(till, &item_id)?, item_id, quantity, reason: "transfer".into() };
            let done = till.commit(OperationKind::Transfer(Transfer { act, to_branch })).await?;
            Said::new(said, "stock_moved").with_committed(&done)
        }
        Command::Show(search) => {
            let found = find(till, &search)?;
            let ids: Vec<_> = found.iter().map(|product| serde_json::json!({ "id": product.id, "stock": product.stock })).collect();
            Said::new(product_lines(&found), "products").with("items", ids)
        }
        Command::Status => status_said(&till.status()),
        Command::Online(online) => {
            till.set_online(online).await;
            let line = if online { "network switched on" } else { "network switched off; selling goes on" };
            Said::new(line, "online").with("on", online)
        }
        Command::Sync => {
            sync(till).await;
            status_said(&till.status())
        }
        Command::Drain => match till.drain(DRAIN_WITHIN).await {
            Ok(()) => Said::new("everything is sent and answered", "drained"),
            Err(waiting) => Said::new(format!("! {waiting}"), "not_drained").with("detail", waiting.to_string()),
        },
        Command::Resync => {
            till.resync().await;
            Said::new("fetching everything anew; the queue stays", "resyncing")
        }
        Command::Dead => dead_letters(till).await?,
        Command::Retry(id) => {
            let again = till.retry(id).await?;
            Said::new(format!("sent again as {}", again.id), "sent_again").with("replaces", id).with_committed(&again)
        }
        Command::Edit(id, kind) => {
            let again = till.edit(id, kind).await?;
            Said::new(format!("sent {} in its place", again.id), "sent_again").with("replaces", id).with_committed(&again)
        }
        Command::Export(file) => {
            let exported = till.export(&file).await?;
            let line = format!("{} operations, {} of them not sent, are in {file}", exported.operations, exported.waiting);
            Said::new(line, "exported").with("file", file).with("operations", exported.operations).with("waiting", exported.waiting)
        }
        Command::Discard(id) => {
            till.discard(id).await?;
            Said::new(format!("{id} discarded"), "discarded").with("operation", id)
        }
        Command::Help => Said::new(HELP, "help").with("commands", HELP),
        Command::Quit => Said::new("", "quit"),
    })
}

/// Asks the server and waits until the answer is shown: `as_of` moves when it is.
async fn sync(till: &Client) {
    let (asked, deadline) = (now(), tokio::time::Instant::now() + DRAIN_WITHIN);
    let begun = till.stats().engine.catch_ups;
    till.sync_now().await;
    // A live till is as of now whatever is under way: only the end of a call that began after this moment tells.
    let is_answered = || till.stats().engine.ended > begun && till.status().as_of.is_some_and(|as_of| as_of >= asked);
    while !is_answered() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn stock_act(
    till: &Client,
    kind: fn(StockAct) -> OperationKind,
    item_id: String,
    quantity: Quantity,
    reason: &str,
) -> Result<Said, mstore_client::CommitError> {
    let collection = target(till, &item_id)?;
    let said = format!("{reason} {quantity} of {item_id}");
    let done = till.commit(kind(StockAct { collection, item_id, quantity, reason: reason.to_owned() })).await?;
    Ok(Said::new(said, "stock_moved").with_committed(&done))
}

/// Whether an id is a product's or an inventory item's; a product that is not known here may still be one.
fn target(till: &Client, id: &str) -> Result<StockTarget, mstore_client::DbError> {
    let is_item = till.product(id)?.is_none() && till.inventory_item(id)?.is_some();
    Ok(if is_item { StockTarget::Inventory } else { StockTarget::Product })
}

/// Products by text, or one by its id.
fn find(till: &Client, search: &str) -> Result<Vec<Product>, mstore_client::DbError> {
    if let Some(product) = till.product(search)? {
        return Ok(vec![product]);
    }
    till.products(&Query { search: search.to_owned(), limit: 20, ..Query::default() })
}

fn product_lines(products: &[Product]) -> String {
    if products.is_empty() {
        return "no such product here".to_owned();
    }
    let line = |product: &Product| {
        let price = product.price.map_or_else(|| "-".to_owned(), |price| price.to_string());
        let pending = product.stock - product.server_stock;
        let pending = if pending == Quantity::ZERO { String::new() } else { format!("  ({pending} not sent yet)") };
        format!("{}  {}  {price}  {}{pending}", product.id, product.stock, product.name)
    };
    products.iter().map(line).collect::<Vec<_>>().join("\n")
}

async fn dead_letters(till: &Client) -> Result<Said, mstore_client::DbError> {
    let letters = till.dead_letters().await?;
    let items: Vec<_> = letters
        .iter()
        .map(|letter| serde_json::json!({ "operation": letter.operation.id, "code": letter.code.map(Code::as_str), "detail": letter.detail }))
        .collect();
    let lines: Vec<_> = letters
        .iter()
        .map(|letter| {
            let code = letter.code.map_or("", |code| code.as_str());
            format!("{}  {}  {code}  {}", letter.operation.id, letter.operation.kind.as_str(), letter.detail.as_deref().unwrap_or_default())
        })
        .collect();
    let line = if lines.is_empty() { "no rejected operations".to_owned() } else { lines.join("\n") };
    Ok(Said::new(line, "dead_letters").with("items", items))
}

/// One line that leaves no staleness unsaid.
pub(super) fn status_line(status: &Status) -> String {
    let age = status.staleness_ms(now()).map_or_else(
        || if status.cursor.is_some() { "not confirmed since the start".to_owned() } else { "never synced".to_owned() },
        |ms| format!("as of {:.1} s ago", ms as f64 / 1000.0),
    );
    let cursor = status.cursor.map_or_else(|| "-".to_owned(), |cursor| cursor.seq.to_string());
    let code = if let mstore_protocol::DeviceState::Blocked(code) = status.state {
        format!(": {code}, {}", code.next_step())
    } else {
        String::new()
    };
    let oldest = status.oldest_pending.map_or_else(String::new, |at| format!(" (oldest {} s)", (now().as_ms() - at.as_ms()) / 1000));
    let dead = if status.dead_letters > 0 { format!("   {} rejected: see `dead`", status.dead_letters) } else { String::new() };
    let refused = if status.upload_refused { "   uploads are refused on their way; everything is kept" } else { "" };
    let mended = if status.digest_mismatches > 0 { format!("   rows mended {} times", status.digest_mismatches) } else { String::new() };
    format!("{}{code}   {age}   seq {cursor}   queue {}{oldest}{dead}{refused}{mended}", status.state.as_str(), status.queue_depth)
}

fn status_said(status: &Status) -> Said {
    Said::new(status_line(status), "status")
        .with("state", status.state.as_str())
        .with("cursor", status.cursor)
        .with("staleness_ms", status.staleness_ms(now()))
        .with("queue_depth", status.queue_depth)
        .with("oldest_pending", status.oldest_pending)
        .with("dead_letters", status.dead_letters)
        .with("upload_refused", status.upload_refused)
        .with("digest_mismatches", status.digest_mismatches)
}
