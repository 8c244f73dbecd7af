//! Decisions of sync, for a device and for the server: no IO, no clock, no randomness of its own, no async.
//!
//! A device's [`Session`] takes one [`Input`] at a time with the time it happened, and gives [`Effect`]s that a driver carries out:
//!
//! ```
//! use mstore_engine::{Effect, Input, Known, Session, SessionConfig};
//!
//! let mut session = Session::new(0, SessionConfig::default(), Known::default());
//! session.handle(0, Input::Woken);
//! while let Some(effect) = session.poll() {
//!     assert!(matches!(effect, Effect::Connect { .. }));
//! }
//! ```

mod backoff;
mod buffer;
mod effect;
mod input;
mod mutation;
pub mod overlay;
pub mod sequence;
mod session;
mod status;
pub mod stock;
mod upload;

pub use buffer::ReadyCommit;
pub use effect::{Ask, Effect, Reason};
pub use input::{ApplyFault, CatchUpOutcome, Comparison, Fault, Input, Known, QueuedOperation, Resume, UploadOutcome};
pub use mutation::{Mutation, Planted};
pub use session::{Counters, Session, SessionConfig};
pub use status::Status;

/// Milliseconds on a clock that only goes forward; where its zero lies is the driver's choice.
pub type Moment = u64;
