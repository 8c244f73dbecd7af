//! Whether anything was lost, doubled or left behind: what the tills said against what the server has, read with the `sqlite3` shell.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Shop,
    foreign::Written,
    letters::{self, Due},
    process,
    storm::Tally,
    till::Heard,
};

/// One question and its answer.
pub(super) struct Check {
    what: &'static str,
    looked_at: usize,
    /// What is wrong, each in a few words.
    wrong: Vec<String>,
}

/// So many commands hold some that have to be refused.
const COMMANDS_MANY: usize = 500;
/// Wrong things named per check.
const NAMED: usize = 5;

impl Check {
    fn new(what: &'static str, looked_at: usize, wrong: Vec<String>) -> Self {
        Self { what, looked_at, wrong }
    }

    pub(super) fn is_good(&self) -> bool {
        self.wrong.is_empty()
    }
}

/// An operation of a till's journal.
struct Done {
    id: String,
    state: String,
    /// Why it was refused.
    code: Option<String>,
    due: Due,
}

impl Done {
    fn is_refused(&self) -> bool {
        self.state == "rejected"
    }

    fn is_judged(&self) -> bool {
        self.state != "queued"
    }
}

struct Sides {
    /// Operation ids with their verdict.
    operations: BTreeMap<String, String>,
    /// Receipt ids.
    transactions: BTreeSet<String>,
    /// Every till's journal.
    journals: BTreeMap<String, Vec<Done>>,
}

/// Compares both sides; the tills have ended.
pub(super) fn compare(shop: &Shop, tally: &Tally, kills: usize) -> Result<Vec<Check>> {
    let database = shop.server.database();
    let sides = read(shop, &database)?;
    let heard = shop.tills.iter().map(|till| (till.name.clone(), till.heard().clone())).collect();
    let killed = if tally.kills() < kills { vec![format!("{} of {kills}", tally.kills())] } else { Vec::new() };
    let mut checks = vec![
        Check::new("processes killed as often as asked", tally.kills(), killed),
        Check::new("processes that ended on their own", tally.own_ends.len(), tally.own_ends.clone()),
        confirmed(&heard, &sides),
        journaled(&sides),
        phantoms(&sides),
        refusals(&sides, tally.commands),
        unblocked(&sides),
        listed_by_server(shop, &sides)?,
        listed_by_tills(&heard, &sides),
    ];
    let doubled = "SELECT device_id || ' ' || receipt_no AS wrong FROM transactions GROUP BY device_id, receipt_no HAVING count(*) > 1";
    checks.push(Check::new("receipt numbers used once", sides.transactions.len(), column(&database, doubled, "wrong")?));
    let ledger =
        "SELECT b.branch_id || ' ' || b.product_id || ': ' || b.stock_milli || ' in stock, ' || coalesce(m.effect, 0) || ' moved' AS wrong
        FROM branch_product b LEFT JOIN (SELECT branch_id, item_id, sum(effect_milli) AS effect FROM stock_move
            WHERE collection = 'product' GROUP BY branch_id, item_id) m ON m.branch_id = b.branch_id AND m.item_id = b.product_id
        WHERE b.stock_milli <> coalesce(m.effect, 0)";
    let items = column(&database, "SELECT count(*) AS n FROM branch_product", "n")?;
    let count = items.first().and_then(|n| n.parse().ok()).unwrap_or(0);
    checks.push(Check::new("stock is the sum of its movements", count, column(&database, ledger, "wrong")?));
    let moved = "SELECT id AS wrong FROM operation WHERE status = 'accepted' AND id NOT IN
        (SELECT operation_id FROM stock_move WHERE operation_id IS NOT NULL)";
    checks.push(Check::new("accepted operations moved the stock", sides.operations.len(), column(&database, moved, "wrong")?));
    let twice = "SELECT operation_id || ' ' || item_id AS wrong FROM stock_move WHERE operation_id IS NOT NULL
        GROUP BY operation_id, item_id HAVING count(*) > 1";
    checks.push(Check::new("… once each", sides.operations.len(), column(&database, twice, "wrong")?));
    checks.push(Check::new("holes in the tills' numbering", 0, column(&database, "SELECT journal_id AS wrong FROM journal_gap", "wrong")?));
    checks.push(verified(shop)?);
    Ok(checks)
}

fn read(shop: &Shop, database: &Path) -> Result<Sides> {
    let operations = rows(database, "SELECT id, status FROM operation")?;
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let mut journals = BTreeMap::new();
    for till in &shop.tills {
        let journal = rows(&till.database, "SELECT id, state, code, body FROM operation ORDER BY device_seq")?;
        let done = journal.iter().map(|row| {
            let body: Value = serde_json::from_str(row["body"].as_str().unwrap_or_default())?;
            let (state, code) = (text(row, "state"), row["code"].as_str().map(str::to_owned));
            Ok(Done { id: text(row, "id"), code: code.filter(|_| state == "rejected"), state, due: Due::of(&body) })
        });
        journals.insert(till.name.clone(), done.collect::<Result<_>>()?);
    }
    Ok(Sides {
        operations: operations.iter().map(|row| (text(row, "id"), text(row, "status"))).collect(),
        transactions: column(database, "SELECT id FROM transactions", "id")?.into_iter().collect(),
        journals,
    })
}

/// Every confirmed operation is on the server, or in its till's list of refused ones, and not in both.
fn confirmed(heard: &BTreeMap<String, Heard>, sides: &Sides) -> Check {
    let (mut count, mut wrong) = (0, Vec::new());
    for (till, heard) in heard {
        count += heard.confirmed.len();
        for (id, what) in &heard.confirmed {
            let is_receipt = what == "sold" || what == "took_back";
            let has_effect = sides.operations.get(id).is_some_and(|status| status == "accepted");
            let has_receipt = sides.transactions.contains(id);
            let is_dead = heard.dead_letters.contains(id);
            if has_effect == is_dead {
                wrong.push(format!("{till} {what} {id}: {}", if is_dead { "accepted and refused" } else { "lost" }));
            } else if is_receipt && has_receipt != has_effect {
                wrong.push(format!("{till} {what} {id}: no receipt"));
            }
        }
    }
    Check::new("confirmed by a till: on the server or refused, once", count, wrong)
}

/// The same for what a till has in its journal and was killed before it could say so; and nothing waits any more.
fn journaled(sides: &Sides) -> Check {
    let (mut count, mut wrong) = (0, Vec::new());
    for (till, journal) in &sides.journals {
        count += journal.len();
        for Done { id, state, .. } in journal {
            let expected = match state.as_str() {
                "accepted" => Some("accepted"),
                "rejected" | "replaced" | "discarded" => Some("rejected"),
                _queued => None,
            };
            let status = sides.operations.get(id).map(String::as_str);
            if expected.is_none() || status != expected {
                wrong.push(format!("{till} {id}: {state} on the till, {} on the server", status.unwrap_or("unknown")));
            }
        }
    }
    Check::new("in a till's journal: the server judged it alike", count, wrong)
}

/// The server has nothing that no till did.
fn phantoms(sides: &Sides) -> Check {
    let done: BTreeSet<&str> = sides.journals.values().flatten().map(|done| done.id.as_str()).collect();
    let known = sides.operations.keys().chain(&sides.transactions);
    let wrong = known.filter(|id| !done.contains(id.as_str())).cloned().collect();
    Check::new("on the server: a till did it", sides.operations.len(), wrong)
}

/// What no server may accept was refused for its own reason, and nothing was refused without one.
fn refusals(sides: &Sides, commands: usize) -> Check {
    let (mut refused, mut tried, mut wrong) = (0, 0, Vec::new());
    for (till, journal) in &sides.journals {
        for done in journal {
            refused += usize::from(done.is_refused());
            tried += usize::from(matches!(done.due, Due::No(_)));
            if !done.due.allows(done.code.as_deref()) {
                wrong.push(format!("{till} {}: {:?} was due, {} with {:?}", done.id, done.due, done.state, done.code));
            }
        }
    }
    if tried == 0 && commands >= COMMANDS_MANY {
        wrong.push(format!("none of {commands} commands should have been refused: nothing was tried"));
    }
    Check::new("refused by the server: what had to be, nothing else", refused, wrong)
}

/// What a till did after an operation that was refused has its own verdict.
fn unblocked(sides: &Sides) -> Check {
    let (mut count, mut wrong) = (0, Vec::new());
    for (till, journal) in &sides.journals {
        let behind: Vec<&Done> = journal.iter().skip_while(|done| !done.is_refused()).skip(1).collect();
        count += behind.len();
        wrong.extend(behind.iter().filter(|done| !done.is_judged()).map(|done| format!("{till} {}: still {}", done.id, done.state)));
    }
    Check::new("behind a refused operation of the same till: judged", count, wrong)
}

/// The server's list of dead letters, as its operator sees it.
fn listed_by_server(shop: &Shop, sides: &Sides) -> Result<Check> {
    let list = process::output(shop.server.admin().args(["device", "dead-letters", "list", "--merchant", "m1", "--json"]))?;
    let list: Vec<Value> = serde_json::from_str(&list).context("the list of dead letters")?;
    let refused: Vec<&str> = sides.operations.iter().filter(|(_, status)| *status == "rejected").map(|(id, _)| id.as_str()).collect();
    let wrong = letters::compare("server", refused.iter().copied(), list.iter().map(|letter| letter["id"].as_str().unwrap_or("no id")));
    Ok(Check::new("refused: once in the server's list of dead letters", refused.len(), wrong))
}

/// Every till's own list, as it says it.
fn listed_by_tills(heard: &BTreeMap<String, Heard>, sides: &Sides) -> Check {
    let (mut count, mut wrong) = (0, Vec::new());
    for (till, journal) in &sides.journals {
        let refused: Vec<&str> = journal.iter().filter(|done| done.is_refused()).map(|done| done.id.as_str()).collect();
        count += refused.len();
        let listed = heard.get(till).map_or(&[][..], |heard| &heard.dead_letters);
        wrong.extend(letters::compare(till, refused.into_iter(), listed.iter().map(String::as_str)));
    }
    Check::new("refused: once in the list of the till that did it", count, wrong)
}

/// `verify`: source, mirror, and every till row by row, none of them behind.
fn verified(shop: &Shop) -> Result<Check> {
    let mut command = shop.server.admin();
    command.args(["verify", "--json"]);
    for till in &shop.tills {
        command.arg("--db").arg(&till.database);
    }
    let output = command.output().context("verify did not start")?;
    let answer: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("verify said {} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))?;
    let databases = answer["databases"].as_array().cloned().unwrap_or_default();
    let differs = |database: &&Value| database["equal"] != true || database["behind"] != 0;
    let mut wrong: Vec<String> = databases.iter().filter(differs).map(ToString::to_string).collect();
    if !output.status.success() {
        wrong.push(format!("verify ended with {}; sweep {}", output.status, answer["sweep"]));
    }
    if databases.len() != shop.tills.len() {
        wrong.push(format!("{} tills compared", databases.len()));
    }
    Ok(Check::new("`verify`: tills equal to the server, row by row", databases.len(), wrong))
}

fn rows(database: &Path, sql: &str) -> Result<Vec<Value>> {
    let text = process::output(Command::new("sqlite3").args(["-readonly", "-json", "-cmd", ".timeout 5000"]).arg(database).arg(sql))?;
    // The shell prints nothing at all for no rows.
    if text.trim().is_empty() { Ok(Vec::new()) } else { Ok(serde_json::from_str(&text)?) }
}

fn column(database: &Path, sql: &str, name: &str) -> Result<Vec<String>> {
    let text = |row: Value| row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned);
    Ok(rows(database, sql)?.into_iter().map(text).collect())
}

/// What was done, and how it came out.
pub(super) fn print(shop: &Shop, tally: &Tally, foreign: &Written, checks: &[Check]) {
    println!("\n| done to the shop | times |\n|---|---|");
    let disk = format!("server's disk full ({})", shop.server.disk.kind());
    let links = shop.links();
    let refused: usize = shop.tills.iter().map(|till| till.heard().failed.values().sum::<usize>()).sum();
    for (what, times) in [
        ("tills killed with -9", tally.till_kills),
        ("server killed with -9", tally.server_kills),
        ("Mosquitto killed with -9", tally.broker_kills),
        ("processes stopped for a while (SIGSTOP, SIGCONT)", tally.pauses),
        ("tills cut off by a proxy (HTTP, MQTT or both; silently or with a break)", tally.cuts),
        (links.as_str(), tally.links_down),
        (disk.as_str(), tally.full_disks),
        ("commands given to tills", tally.commands),
        ("commands that a till refused, saying why", refused),
        ("writes of a foreign SQL client", foreign.done),
        ("writes that it could not make (disk full, busy)", foreign.refused),
    ] {
        println!("| {what} | {times} |");
    }
    println!("\n| checked | looked at | wrong |\n|---|---|---|");
    for check in checks {
        println!("| {} | {} | {} |", check.what, check.looked_at, check.wrong.len());
    }
    for check in checks.iter().filter(|check| !check.is_good()) {
        println!("\n{}:", check.what);
        for wrong in check.wrong.iter().take(NAMED) {
            println!("  {wrong}");
        }
        if check.wrong.len() > NAMED {
            println!("  … and {} more", check.wrong.len() - NAMED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(confirmed: &[&str], dead_letters: &[&str]) -> BTreeMap<String, Heard> {
        let confirmed = confirmed.iter().map(|id| ((*id).to_owned(), "sold".to_owned())).collect();
        let dead_letters = dead_letters.iter().map(|id| (*id).to_owned()).collect();
        BTreeMap::from([("till".to_owned(), Heard { confirmed, dead_letters, ..Heard::default() })])
    }

    fn sides(operations: &[(&str, &str)], transactions: &[&str], journal: &[(&str, &str)]) -> Sides {
        let code = |state: &str| (state == "rejected").then(|| "unknown_product".to_owned());
        let done = |(id, state): &(&str, &str)| Done {
            id: (*id).to_owned(),
            state: (*state).to_owned(),
            code: code(state),
            due: if id.starts_with("no-") { Due::No("unknown_product") } else { Due::Yes },
        };
        let done = journal.iter().map(done).collect();
        Sides {
            operations: operations.iter().map(|(id, status)| ((*id).to_owned(), (*status).to_owned())).collect(),
            transactions: transactions.iter().map(|id| (*id).to_owned()).collect(),
            journals: BTreeMap::from([("till".to_owned(), done)]),
        }
    }

    #[test]
    fn a_sale_that_is_nowhere_or_in_two_places_is_found() {
        let server =
            sides(&[("sold", "accepted"), ("dead", "rejected"), ("both", "accepted"), ("bare", "accepted")], &["sold", "both"], &[]);
        assert!(confirmed(&heard(&["sold", "dead"], &["dead"]), &server).is_good());
        for (id, dead, wrong) in [("gone", vec![], "lost"), ("both", vec!["both"], "accepted and refused"), ("bare", vec![], "no receipt")]
        {
            let check = confirmed(&heard(&[id], &dead), &server);
            assert_eq!(check.wrong, [format!("till sold {id}: {wrong}")]);
        }
    }

    #[test]
    fn what_waits_was_judged_otherwise_or_was_never_done_is_found() {
        let journal = [("a", "accepted"), ("r", "rejected")];
        let equal = sides(&[("a", "accepted"), ("r", "rejected")], &["a"], &journal);
        assert!(journaled(&equal).is_good() && phantoms(&equal).is_good());
        assert!(!journaled(&sides(&[("a", "accepted")], &[], &[("a", "queued")])).is_good(), "still waiting");
        assert!(!journaled(&sides(&[("a", "rejected"), ("r", "rejected")], &[], &journal)).is_good(), "judged otherwise");
        assert_eq!(phantoms(&sides(&[("a", "accepted"), ("r", "rejected"), ("x", "accepted")], &["y"], &journal)).wrong, ["x", "y"]);
    }

    #[test]
    fn a_refusal_that_is_wrong_missing_or_in_the_way_is_found() {
        let good = sides(&[], &[], &[("no-1", "rejected"), ("b", "accepted")]);
        assert!(refusals(&good, COMMANDS_MANY).is_good() && unblocked(&good).is_good());
        assert!(listed_by_tills(&heard(&[], &["no-1"]), &good).is_good());
        assert!(!listed_by_tills(&heard(&[], &[]), &good).is_good(), "it is in no list");
        assert!(!refusals(&sides(&[], &[], &[("no-1", "accepted")]), 1).is_good(), "accepted");
        assert!(!refusals(&sides(&[], &[], &[("a", "rejected"), ("no-1", "rejected")]), 1).is_good(), "refused without a reason");
        assert!(!refusals(&sides(&[], &[], &[("a", "accepted")]), COMMANDS_MANY).is_good(), "nothing was tried");
        assert!(!unblocked(&sides(&[], &[], &[("no-1", "rejected"), ("b", "queued")])).is_good(), "stuck behind it");
    }
}
