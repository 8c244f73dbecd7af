//! Server storage: whole use cases behind one trait each, so that nobody can write a row and forget its mark.
//!
//! It knows nothing of HTTP, MQTT or tokens; it publishes nothing. A store hands out what is durable and forgets it when told.

mod access;
mod books;
mod cases;
#[doc(hidden)]
pub mod failpoint;
mod fresh;
mod inbox;
mod model;
pub mod postgres;
mod source_row;
mod sql;
pub mod sqlite;
mod start;
mod store;
mod sweep_position;
mod text;

pub use access::{
    Act, ActorRole, AdminRole, AdminTokens, AuditLog, AuditOf, By, FileToken, NewToken, Presented, TokenChange, TokenHash, TokenRecord,
};
pub use books::{BooksOf, DeadLetterAct, DeadLetters, DeadLettersOf, Decide, Decided, Imbalance, StockBooks, TransferArrival};
pub use inbox::{Attempt, Due, Inbox, InboxBacklog, InboxOf};
pub use model::*;
pub use store::{Admin, Registry, RowSink, ServiceLevels, Sharing, Store, SyncStore};
