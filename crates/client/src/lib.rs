//! The device's SDK: a synced copy of the branch in one SQLite file, and a journal whose operations reach the server exactly once.
//!
//! It decides nothing about sync: `mstore-engine` does. It is the only crate that knows rusqlite, reqwest and rumqttc on a device.
//!
//! ```no_run
//! use mstore_client::{Client, NewReceipt, Options, Query, Quantity};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let till = Client::enrol("till.db", "http://127.0.0.1:8080", "7G2K-9QXM-31TB", Options::default()).await?;
//! for product in till.products(&Query::default())? {
//!     println!("{} {}", product.name, product.stock);
//! }
//! let sale = till.commit_sale(NewReceipt::of([("SKU-00042", Quantity::from_units(2))])).await?;
//! println!("receipt {:?} is on disk", sale.receipt_no);
//! # Ok(()) }
//! ```
//! `examples/till.rs` is a whole till on a terminal.

mod ahead;
mod chance;
mod client;
mod db;
mod driver;
mod error;
mod http;
mod journal;
mod mqtt;
mod options;
mod sale;
mod shared;
mod staged;
mod stats;
mod trust;
mod views;

pub use client::{Client, DeadLetter, NotWiped};
pub use error::{CommitError, DbError, ExportError, NotDrained, OpenError, WipeError};
pub use journal::{Exported, Journal};
pub use mstore_engine::Counters;
pub use mstore_protocol::{
    ClaimLink, Collection, Cursor, DeviceState, Digest, Enrolment, Money, OperationId, OperationKind, Profile, Quantity, StockAct,
    StockTarget, Tender, Timestamp, Transfer,
};
pub use options::{Faults, Options};
pub use sale::{Committed, NewLine, NewReceipt};
pub use shared::Status;
pub use stats::{AppliedCommit, Stats, Via};
pub use views::{InventoryItem, Product, Query, Transaction};
