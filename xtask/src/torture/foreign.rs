//! A writer that is not ours: the `sqlite3` shell on the server's tables while all the rest goes on.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Result, anyhow};

use super::{chance::Chance, wait::pause_unless};

const EVERY: Duration = Duration::from_millis(300);

/// What it wrote.
#[derive(Default)]
pub(super) struct Written {
    pub(super) done: usize,
    /// Statements that the shell could not carry out: disk full, database busy for too long.
    pub(super) refused: usize,
}

pub(super) struct Foreign {
    stop: SyncSender<()>,
    thread: JoinHandle<Written>,
}

impl Foreign {
    pub(super) fn start(database: &Path, products: usize, branches: &[String], seed: u64) -> Self {
        let (stop, stopped) = sync_channel(0);
        let (database, branches) = (database.to_owned(), branches.to_vec());
        let thread = thread::spawn(move || {
            let (mut written, mut chance, mut n) = (Written::default(), Chance::new(seed), 0);
            while pause_unless(EVERY, &stopped) {
                n += 1;
                let sql = statement(n, products, &branches, &mut chance);
                let mut shell = Command::new("sqlite3");
                shell.args(["-bail", "-cmd", ".timeout 5000"]).arg(&database).arg(sql);
                let status = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
                if status.is_ok_and(|status| status.success()) { written.done += 1 } else { written.refused += 1 }
            }
            written
        });
        Self { stop, thread }
    }

    pub(super) fn stop(self) -> Result<Written> {
        drop(self.stop);
        self.thread.join().map_err(|_panic| anyhow!("the foreign writer panicked"))
    }
}

/// A price for all branches, or a delivery at one of them.
fn statement(n: usize, products: usize, branches: &[String], chance: &mut Chance) -> String {
    let product = super::product(chance.below(products));
    if n.is_multiple_of(2) {
        let amount = 1_000 + chance.below(90_000);
        return format!("UPDATE product SET price_amount = {amount} WHERE merchant_id = 'm1' AND id = '{product}'");
    }
    let branch = branches[chance.below(branches.len())].trim_start_matches("m1/");
    let milli = 1_000 * (1 + chance.below(5));
    format!(
        "INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, quantity_milli, effect_milli, reason) \
         VALUES ('m1', '{branch}', 'foreign-{n}', 'product', '{product}', {milli}, {milli}, 'delivery')"
    )
}
