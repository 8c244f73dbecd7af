/** The limits of the wire contract that a till meets, with the unit at the end of each name. */

/** Longest segment of a topic or path (merchant, branch, device, collection). */
export const SEGMENT_BYTES_MAX = 64;
/** Longest row id. */
export const ROW_ID_BYTES_MAX = 128;
/** Largest row in its canonical form. */
export const ROW_BYTES_MAX = 256 * 1024;
/** Deepest nesting of arrays and objects in a row. */
export const ROW_DEPTH_MAX = 16;
/** Largest MQTT frame payload. */
export const FRAME_BYTES_MAX = 64 * 1024;
/** Most operations in one upload. */
export const OPERATIONS_PER_UPLOAD_MAX = 500;
/** Most lines on one receipt. */
export const RECEIPT_LINES_MAX = 1_000;
/** Most tenders on one receipt. */
export const RECEIPT_TENDERS_MAX = 20;
/** Longest free text in an operation. */
export const TEXT_BYTES_MAX = 200;
/** Largest absolute quantity, in thousandths. */
export const QUANTITY_MILLI_MAX = 1_000_000_000_000;
/** Default time between two polls, seconds. */
export const POLL_INTERVAL_S = 300;
/** Age below which an MQTT head that equals the cursor lets a poll be skipped, seconds. */
export const HEAD_FRESH_S = 90;
/** Days a device keeps accepted operations, to hand them to a server restored from a backup. */
export const JOURNAL_KEEP_DAYS = 30;
/** Longest line of a `/changes` answer, in characters. */
export const LINE_CHARS_MAX = 2 * ROW_BYTES_MAX;

const encoder = new TextEncoder();

/** Bytes of a text in UTF-8; what every limit counts. */
export function byteLength(text: string): number {
  return encoder.encode(text).length;
}
