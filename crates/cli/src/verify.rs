//! `verify`: source against mirror (the sweep, at once), mirror against what the tills report, and row by row against till databases.

use std::{collections::BTreeMap, path::Path};

use mstore_protocol::{BranchKey, Collection, Cursor, Enrolment};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::{
    api::AdminApi,
    args::VerifyArgs,
    audit::{Auditor, Rows, differences, digests_of},
    failure::Failure,
    table,
};

/// Differences named per database.
const DIFFERENCES_SHOWN: usize = 5;

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: VerifyArgs) -> Result<(), Failure> {
    let api = AdminApi::from_args(&args.admin)?;
    let sweep = api.post("/v1/admin/verify", &json!({})).await?;
    let fleet = api.list_all("/v1/admin/fleet").await?;
    let tills: Vec<Value> = fleet.iter().filter(|till| till["status"] == "active" && !till["report"].is_null()).map(till_state).collect();
    let mut databases = Vec::new();
    for path in &args.db {
        databases.push(compare(&api, &args.admin.server, path).await?);
    }
    let is_blocked = |till: &Value| till["state"] == "blocked";
    let bad = sweep["clean"] != true || tills.iter().any(is_blocked) || databases.iter().any(|checked| checked["equal"] == false);
    if args.json {
        println!("{}", json!({ "equal": !bad, "sweep": sweep, "tills": tills, "databases": databases }));
    } else {
        show(&sweep, &tills, &databases);
    }
    if bad {
        Err(Failure::check("something differs, or a till is blocked").next("what the sweep found is on its way to the tills: run verify again in a minute; a blocked till says why with `device list`; GET /v1/admin/alarms"))
    } else {
        Ok(())
    }
}

/// What the till's last report says of it. Tills that are behind are not wrong: they say so.
fn till_state(till: &Value) -> Value {
    let behind = till["lag_commits"].as_u64();
    let mismatches = till["report"]["counters"]["digest_mismatches"].as_u64().unwrap_or(0);
    json!({
        "device": till["device_id"], "branch": format!("{}/{}", till["merchant"].as_str().unwrap_or_default(), till["branch"].as_str().unwrap_or_default()),
        "state": till["report"]["state"], "behind": behind, "queue": till["report"]["queue_depth"], "reported_s_ago": till["reported_s_ago"],
        "mended": mismatches,
    })
}

/// A till's file against what the server would give it now; the file is only read.
async fn compare(api: &AdminApi, server: &str, path: &Path) -> Result<Value, Failure> {
    let (key, cursor, rows) = read_till(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let auditor = Auditor::enrol(api, server, &key).await?;
    let copy = auditor.read().await?;
    auditor.leave(api).await?;
    // A till that is behind is not wrong: what changed since its cursor is left out on both sides.
    let (had, now) = (cursor.map_or(0, |cursor| cursor.seq), copy.cursor.map_or(0, |cursor| cursor.seq));
    let is_behind = cursor != copy.cursor;
    let unchanged: Rows = copy
        .rows
        .iter()
        .filter(|(place, _)| !is_behind || copy.seqs.get(*place).is_some_and(|seq| *seq <= had))
        .map(|(place, text)| (place.clone(), text.clone()))
        .collect();
    let held: Rows = rows
        .iter()
        .filter(|(place, _)| !is_behind || unchanged.contains_key(*place))
        .map(|(place, text)| (place.clone(), text.clone()))
        .collect();
    let differences = differences(&unchanged, &held, DIFFERENCES_SHOWN);
    let digests_fit = digests_of(&copy.rows).iter().all(|(collection, digest)| copy.digests.get(collection) == Some(digest));
    Ok(
        json!({ "file": path.display().to_string(), "branch": key.to_string(), "rows": rows.len(), "behind": now.saturating_sub(had), "equal": differences.is_empty() && digests_fit, "differences": differences }),
    )
}

fn read_till(path: &Path) -> Result<(BranchKey, Option<Cursor>, Rows), String> {
    type Raw = (String, Option<String>, Vec<(String, String, String)>);
    let read = || -> rusqlite::Result<Raw> {
        let sql = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let enrolment = sql.query_row("SELECT value FROM state WHERE name = 'enrolment'", [], |row| row.get(0))?;
        let cursor = sql.query_row("SELECT cursor FROM position", [], |row| row.get(0))?;
        let mut rows = sql.prepare("SELECT collection, id, body FROM row")?;
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect::<Result<_, _>>()?;
        Ok((enrolment, cursor, rows))
    };
    let (enrolment, cursor, rows) = read().map_err(|error| format!("not a till's database: {error}"))?;
    let enrolment: Enrolment = serde_json::from_str(&enrolment).map_err(|error| format!("not a till's database: {error}"))?;
    let mut all: Rows = BTreeMap::new();
    for (collection, id, body) in rows {
        all.insert((Collection::parse(&collection).map_err(|error| error.to_string())?, id), body);
    }
    let cursor = cursor.map(|raw| Cursor::parse(&raw)).transpose().map_err(|error| error.to_string())?;
    Ok((BranchKey { merchant: enrolment.merchant, branch: enrolment.branch }, cursor, all))
}

#[allow(clippy::print_stdout)]
fn show(sweep: &Value, tills: &[Value], databases: &[Value]) {
    println!("source and mirror: {} rows compared, {} differed, {} mended", sweep["compared"], sweep["differing"], sweep["mended"]);
    let text =
        |value: &Value| value.as_str().map_or_else(|| if value.is_null() { "-".to_owned() } else { value.to_string() }, str::to_owned);
    let rows: Vec<Vec<String>> = tills
        .iter()
        .map(|till| {
            ["device", "branch", "state", "behind", "queue", "mended", "reported_s_ago"].iter().map(|key| text(&till[key])).collect()
        })
        .collect();
    if !rows.is_empty() {
        println!("{}", table::render(&["till", "branch", "state", "behind", "queue", "mended", "reported s ago"], &rows));
    }
    for database in databases {
        let verdict = if database["equal"] == true { "equal" } else { "DIFFERS" };
        let behind = if database["behind"] == 0 { String::new() } else { format!(", {} commits behind", database["behind"]) };
        println!("{}: {} rows of {}: {verdict}{behind}", text(&database["file"]), database["rows"], text(&database["branch"]));
        for difference in database["differences"].as_array().into_iter().flatten() {
            println!("  {}", text(difference));
        }
    }
}
