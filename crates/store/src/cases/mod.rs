//! The use cases, written once for every database: what is judged, what is written, what is refused. They know the seam and no database.
//!
//! They sequence nothing: a case says which branches it touched, and whoever carries it out waits for their commits.

mod admin_tokens;
mod admission;
pub(crate) mod alarms;
mod audit;
mod carrier;
mod closing;
mod dead_letters;
mod events;
pub(crate) mod inbox;
mod ledger;
mod levels;
pub(crate) mod listing;
mod locks;
mod ops;
mod recipe;
mod registry;
mod stock_books;
mod transfers;
pub(crate) mod windows;
mod work;
mod writes;

pub(crate) use carrier::{Carrier, accept, alarm, list, write};
pub(crate) use closing::close_ledger;
pub(crate) use work::{Case, Seen, Size, Work};
