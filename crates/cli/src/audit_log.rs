//! `audit`: who did what to tills, tokens and the books, when, and from where.

use mstore_protocol::Timestamp;
use serde_json::Value;

use crate::{
    api::{AdminApi, encode},
    args::{AuditArgs, time},
    failure::Failure,
    shop::now,
    table,
};

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: AuditArgs) -> Result<(), Failure> {
    let since = args.since.as_deref().map(since).transpose()?;
    let wanted = [("merchant", args.merchant), ("device", args.device), ("actor", args.actor), ("action", args.action), ("since", since)];
    let filters = wanted.into_iter().filter_map(|(name, value)| Some(format!("&{name}={}", encode(&value?))));
    let path = filters.fold(format!("/v1/admin/audit?limit={}", args.limit), |path, filter| path + &filter);
    let page: Value = AdminApi::from_args(&args.admin)?.get(&path).await?;
    if args.json {
        println!("{}", page["items"]);
        return Ok(());
    }
    let items = page["items"].as_array().cloned().unwrap_or_default();
    println!("{}", table::of(&["at", "action", "role", "actor", "address", "merchant", "branch", "device", "subject", "detail"], &items));
    if !page["next"].is_null() {
        println!("the newest {}; there are more: --limit, --since", items.len());
    }
    Ok(())
}

/// A time, or so long ago.
fn since(raw: &str) -> Result<String, Failure> {
    if let Ok(ago) = time(raw) {
        return Ok(now().plus_ms(-i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)).to_string());
    }
    let at = Timestamp::parse(raw).map_err(|error| Failure::usage(format!("--since {raw:?}: {error}; or so long ago: 90d, 12h, 30m")))?;
    Ok(at.to_string())
}
