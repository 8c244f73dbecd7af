//! What `attach` prints: for people on stdout, progress on a terminal only.
#![allow(clippy::print_stdout)]

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use mstore_store::postgres::attach::{Plan, Progress, Proposal, mapping::Place};

use crate::table;

/// The tables that were found and what is proposed for each.
pub(super) fn proposal(proposal: &Proposal, file: &Path) {
    let mut rows = Vec::new();
    for collection in &proposal.mapping.collections {
        let branch = match &collection.branch {
            Place::Fixed { fixed } => fixed.clone(),
            Place::Column { column } => format!("by {column}"),
            Place::Every { .. } => "every".into(),
        };
        let state = if collection.enabled { "" } else { "not enabled" };
        rows.push(vec![collection.name.clone(), collection.table.to_string(), collection.key.join(", "), branch, state.into()]);
    }
    let headings = ["collection", "table", "key", "branch", ""];
    println!("{}", table::render(&headings, &rows));
    for (table, why) in &proposal.skipped {
        println!("left out: {table}: {why}");
    }
    println!("\nThe mapping is in {}: read it, change what is wrong in it, and run this again.\n", file.display());
}

/// What would be done.
pub(super) fn plan(plan: &Plan, with_sql: bool) {
    let statements = plan.sql();
    if with_sql {
        for statement in &statements {
            println!("{statement};");
        }
    }
    for (collection, table, rows) in plan.collections() {
        let rows = if rows < 0 { String::new() } else { format!(", about {rows} rows") };
        println!("{collection} ← {table}{rows}");
    }
    println!(
        "{} statements: functions in the schema mstore, and triggers on the tables. Each table is locked against writers for a moment; readers pass.",
        statements.len()
    );
}

/// It is done.
pub(super) fn attached(plan: &Plan, is_inbox_on: bool) {
    let names: Vec<&str> = plan.collections().map(|(name, ..)| name).collect();
    println!("attached: {}", names.join(", "));
    match is_inbox_on {
        true => println!("operations of tills: in mstore.operation_inbox, for your backend to decide"),
        false => println!("operations of tills: recorded, the inbox is off; `attach --operation-inbox on` hands them to your backend"),
    }
    println!("next: mstore-sync serve --database URL");
}

/// A collection is off its tables.
pub(super) fn detached(collection: &str, triggers: usize) {
    println!("detached: {collection} ({triggers} triggers removed)");
}

/// The schema is gone.
pub(super) fn purged() {
    println!("the schema mstore is gone");
}

/// Progress on a terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub(super) fn show(&self, progress: &Progress) {
        self.0.set_message(match progress {
            Progress::Captured { collection, table } => format!("{collection}: triggers on {table}"),
            Progress::Marked { collection, rows, .. } => format!("{collection}: {rows} rows marked"),
        });
        self.0.tick();
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
