/** What a session asks of its driver: imperatives, to be carried out in their order. */

import type { Cursor } from "../protocol/cursor.js";
import type { Verdict } from "../protocol/upload.js";
import type { ReadyCommit } from "./buffer.js";

/** Why the device asks for `/changes`. */
export type Reason = "first" | "returned" | "gap" | "head_ahead" | "pull" | "poll" | "renumbered" | "repair" | "requested";

const FALLBACKS: readonly Reason[] = ["returned", "gap", "head_ahead", "poll", "requested"];

/** Whether changes that come this way should have come over MQTT, had it done its work. */
export function isFallback(reason: Reason): boolean {
  return FALLBACKS.includes(reason);
}

/** One `/changes` call. */
export interface Ask {
  /** What the device has; none for a snapshot. */
  readonly after: Cursor | undefined;
  /** Where a broken answer stopped; wins over `after`, and its rows join those staged. */
  readonly resume: string | undefined;
  /** The rows staged so far stay: this answer goes on from where they end. */
  readonly keepStaged: boolean;
  /** The answer is shown together with ranges that were fetched before. */
  readonly overRanges: boolean;
  readonly reason: Reason;
  /** Changes that come this way count as fallback: the device had a network all the time. */
  readonly isFallback: boolean;
}

/** Something to do. */
export type Effect =
  /** Open the MQTT connection and subscribe to the head and the updates of these collections. */
  | { readonly do: "connect"; readonly collections: readonly string[] }
  | { readonly do: "subscribe"; readonly collection: string }
  | { readonly do: "catch_up"; readonly ask: Ask }
  | { readonly do: "fetch_head" }
  /** Show a commit: rows, cursor and the operations it contains in one local transaction. */
  | { readonly do: "apply"; readonly commit: ReadyCommit }
  /** Show what is staged, up to `to`, in one local transaction; for a snapshot everything else goes. */
  | { readonly do: "show"; readonly to: Cursor; readonly snapshot: boolean; readonly isFallback: boolean }
  /** Forget what is staged, fetched ranges too. */
  | { readonly do: "drop_staged" }
  /** The rows are the server's already: take its cursor. */
  | { readonly do: "adopt"; readonly to: Cursor }
  /** Fetched ranges in the place of the local ones, what is staged on top, and the cursor, in one local transaction. */
  | { readonly do: "renumber"; readonly to: Cursor }
  /** Count the local rows anew, from their texts. */
  | { readonly do: "recount" }
  | { readonly do: "fetch_sub_digests"; readonly collection: string }
  | { readonly do: "fetch_rows"; readonly collection: string; readonly ranges: readonly number[] }
  /** Put the fetched rows in the place of the local ones of those ranges, and count the collection anew. */
  | { readonly do: "replace_ranges"; readonly collection: string; readonly ranges: readonly number[] }
  /** Post these operations, in this order. */
  | { readonly do: "upload"; readonly ids: readonly string[] }
  /** Write verdicts to the journal. */
  | { readonly do: "settle"; readonly verdicts: readonly Verdict[] }
  /** Hand in accepted operations of the last days again: the server may have forgotten them. */
  | { readonly do: "requeue" };
