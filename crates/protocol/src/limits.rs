//! Every limit of the wire contract, with its unit at the end of its name; related ones are asserted at compile time.

/// Longest segment of a topic or path (merchant, branch, device, collection).
pub const SEGMENT_BYTES_MAX: usize = 64;
/// Longest row id.
pub const ROW_ID_BYTES_MAX: usize = 128;
/// Largest row in its canonical form: a receipt of about a thousand lines.
pub const ROW_BYTES_MAX: usize = 256 * 1024;
/// Deepest nesting of arrays and objects in a row.
pub const ROW_DEPTH_MAX: usize = 16;
/// Largest absolute integer in a row: 2^53 − 1, what every JSON reader holds exactly.
pub const INTEGER_MAX: i64 = 9_007_199_254_740_991;
/// Largest MQTT frame payload.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// A commit with more changes than this sends no frames: its head tells the devices to pull.
pub const BULK_CHANGES_MAX: usize = 500;
/// Most operations in one upload.
pub const OPERATIONS_PER_UPLOAD_MAX: usize = 500;
/// Most lines on one receipt.
pub const RECEIPT_LINES_MAX: usize = 1_000;
/// Most tenders on one receipt.
pub const RECEIPT_TENDERS_MAX: usize = 20;
/// Longest free text in an operation (reason, receipt number, client id of a journal).
pub const TEXT_BYTES_MAX: usize = 200;
/// Longest detail of a refusal: it quotes what it complains about, and that may be megabytes long.
pub const DETAIL_BYTES_MAX: usize = 500;
/// Longest code of a merchant's backend, in characters.
pub const BACKEND_CODE_CHARS_MAX: usize = 64;
/// Largest report of a device about itself: it is kept for every device and listed.
pub const REPORT_BYTES_MAX: usize = 64 * 1024;
/// Largest JSON body of a request.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest absolute quantity, in thousandths.
pub const QUANTITY_MILLI_MAX: i64 = 1_000_000_000_000;
/// Most own operation ids named in the first line of a `/changes` answer; older ones settle by their verdict.
pub const CHANGES_OPS_MAX: usize = 2_000;
/// Rows of one page of an admin listing.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Most row ids asked for at once.
pub const ROWS_PER_REQUEST_MAX: usize = 2_000;
/// Default time between two polls, seconds.
pub const POLL_INTERVAL_S: u64 = 300;
/// Age below which an MQTT head that equals the cursor lets a poll be skipped, seconds.
pub const HEAD_FRESH_S: u64 = 90;
/// The head is sent again after this much silence, seconds.
pub const HEAD_INTERVAL_S: u64 = 60;
/// How long a claim code may be used, seconds.
pub const CLAIM_LIFETIME_S: u64 = 15 * 60;
/// Days a device keeps accepted operations, to hand them to a server restored from a backup.
pub const JOURNAL_KEEP_DAYS: i64 = 30;
/// Difference between a device's corrected clock and the server's within which order cannot be told, milliseconds.
pub const CLOCK_TOLERANCE_MS: i64 = 2_000;

const _: () = assert!(OPERATIONS_PER_UPLOAD_MAX <= PAGE_ROWS_MAX);
const _: () = assert!(ROW_BYTES_MAX < BODY_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= ROW_BYTES_MAX && REPORT_BYTES_MAX <= BODY_BYTES_MAX);
const _: () = assert!(POLL_INTERVAL_S > HEAD_FRESH_S && HEAD_FRESH_S > HEAD_INTERVAL_S);
