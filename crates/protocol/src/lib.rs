//! The wire contract, version 1: every shape that crosses between server, broker and device, and nothing that does IO or reads a clock.
//!
//! Parse once into a type: a [`BranchId`], a [`Row`], a [`Quantity`] that exists is valid, so nothing checks it again.

mod canonical;
mod changes;
mod claim_link;
mod code;
mod cursor;
mod dead_letter;
mod digest;
mod enrolment;
mod event;
mod frame;
mod head;
mod inbox;
mod journal;
pub mod limits;
mod money;
mod nearest;
mod operation;
mod personal;
mod problem;
mod profile;
mod quantity;
mod report;
mod row;
mod scope;
mod timestamp;
mod topic;
mod upload;

pub use canonical::{CanonicalError, canonicalise};
pub use changes::{ChangeLine, ChangesEnd, ChangesFirst, LineOp, Position, PositionError};
pub use claim_link::ClaimLink;
pub use code::{Code, Retry};
pub use cursor::{Cursor, CursorError, Epoch, Seq, Tag};
pub use dead_letter::{DeadLetterAnswer, DeadLetterReport, DecidedBy, Decision, LocalDecision, OperationDecision};
pub use digest::{Digest, DigestError, RowHash, SUB_DIGESTS, bucket_of};
pub use enrolment::{EnrolRequest, Enrolment, Rotation};
pub use event::{EventError, EventRequest, EventVerdict, StockAuthority};
pub use frame::{Change, ChangeOp, Frame, FrameError, PROTOCOL_VERSION, frame_type};
pub use head::Head;
pub use inbox::{BackendDecision, BackendVerdict, Delivery};
pub use journal::{JOURNAL_FORMAT, JournalFile};
pub use money::{Currency, Money, MoneyError};
pub use nearest::{did_you_mean, nearest};
pub use operation::{Operation, OperationError, OperationId, OperationKind, Receipt, ReceiptLine, StockAct, StockTarget, Tender, Transfer};
pub use personal::{PersonalData, PersonalFound, PersonalKind};
pub use problem::Problem;
pub use profile::{Profile, ProfileError};
pub use quantity::{Quantity, QuantityError};
pub use report::{DeviceReport, DeviceState, LatencyHistogram, ROTATE_HEADER};
pub use row::{Row, RowError};
pub use scope::{BranchId, BranchKey, Collection, DeviceId, Env, MerchantId, Scope, SegmentError};
pub use timestamp::{BusinessDate, Timestamp, TimestampError};
pub use topic::{Topic, TopicError, TopicKind};
pub use upload::{Upload, UploadAnswer, Verdict, VerdictStatus};
