/** What a session is told: past participles, one at a time. */

import type { Cursor } from "../protocol/cursor.js";
import type { Frame } from "../protocol/frame.js";
import type { Digests, Head } from "../protocol/head.js";
import type { Verdict } from "../protocol/upload.js";

/** An operation that waits for its verdict; `at` is the device's clock, milliseconds since 1970. */
export interface QueuedOperation {
  readonly id: string;
  readonly at: number;
}

/** Where a broken answer stopped. */
export interface Resume {
  readonly position: string;
  readonly snapshot: boolean;
}

/** What the local database holds when a session begins. */
export interface Known {
  readonly cursor: Cursor | undefined;
  readonly digests: Digests;
  readonly resume: Resume | undefined;
  readonly queue: readonly QueuedOperation[];
}

/** Trouble that may pass: of the network, or a server that asks for patience. */
export interface Fault {
  /** What `Retry-After` asked for. */
  readonly retryAfterMs: number | undefined;
  /** The server was reached and said that it cannot answer now. */
  readonly reached: boolean;
}

/** Nothing came, or it broke off. */
export const NO_NETWORK: Fault = { retryAfterMs: undefined, reached: false };
/** The server was reached; its answer cannot be used. */
export const NO_USE: Fault = { retryAfterMs: undefined, reached: true };

/** What became of a `/changes` call. */
export type CatchUpOutcome =
  | { readonly is: "complete"; readonly to: Cursor; readonly digests: Digests }
  | { readonly is: "unchanged" }
  | { readonly is: "broken"; readonly resume: string | undefined }
  | { readonly is: "snapshot_required" }
  | { readonly is: "refused"; readonly code: string }
  | { readonly is: "failed"; readonly fault: Fault };

/** How the server's sub-digests of a collection and the local ones differ. */
export interface Comparison {
  readonly at: Cursor;
  readonly ranges: readonly number[];
  /** How many rows the device holds in them. */
  readonly rows: number;
}

/** What became of an upload. */
export type UploadOutcome =
  | { readonly is: "answered"; readonly verdicts: readonly Verdict[] }
  | { readonly is: "rejected"; readonly code: string }
  | { readonly is: "refused"; readonly code: string }
  | { readonly is: "failed"; readonly fault: Fault };

/** An answer, or why there is none. */
export type Result<T> = { readonly ok: T } | { readonly fault: Fault };

/** Something that happened. */
export type Input =
  | { readonly is: "woken" }
  /** The MQTT connection stands and every topic asked for is subscribed. */
  | { readonly is: "subscribed" }
  | { readonly is: "connection_refused"; readonly code: string }
  | { readonly is: "disconnected" }
  /** The platform says that the network came or went: a hint, never the truth. */
  | { readonly is: "network_changed"; readonly available: boolean }
  | { readonly is: "frame_arrived"; readonly collection: string; readonly frame: Frame }
  | { readonly is: "head_arrived"; readonly head: Head }
  | { readonly is: "caught_up"; readonly outcome: CatchUpOutcome }
  | { readonly is: "head_fetched"; readonly result: Result<Head> }
  /** Everything handed out so far is shown; `digests` are the local ones at `cursor`. */
  | { readonly is: "applied"; readonly cursor: Cursor; readonly digests: Digests }
  /** A commit could not be shown; nothing after `cursor` is. */
  | { readonly is: "apply_failed"; readonly cursor: Cursor | undefined; readonly fault: "base_missing" | "storage" }
  | { readonly is: "compared"; readonly result: Result<Comparison> }
  /** The rows are kept, as of this cursor. */
  | { readonly is: "rows_fetched"; readonly result: Result<Cursor> }
  /** What was shown then, and the collections whose texts do not add up; nothing if the rows could not be read. */
  | { readonly is: "recounted"; readonly counted: { readonly cursor: Cursor; readonly altered: readonly string[] } | undefined }
  | { readonly is: "operation_committed"; readonly operation: QueuedOperation }
  | { readonly is: "requeued"; readonly operations: readonly QueuedOperation[] }
  | { readonly is: "uploaded"; readonly outcome: UploadOutcome }
  | { readonly is: "sync_requested" }
  | { readonly is: "resync_requested" };
