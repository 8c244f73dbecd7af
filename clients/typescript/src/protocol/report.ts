/** What a device tells the server about itself, so that no till is stale in silence. */

import { cursor, type Cursor } from "./cursor.js";
import { digests, type Digests } from "./head.js";
import { dictionary, flag, list, maybe, member, missingOr, natural, object, readText, type Reads, text, word } from "./shape.js";
import { timestamp } from "./timestamp.js";

/** The states of a device's sync; what the cashier is shown. */
export const STATES = ["starting", "catching_up", "live", "polling", "offline", "needs_snapshot", "blocked"] as const;
export type StateName = (typeof STATES)[number];

/** The state of a device's sync; `code` says why it is blocked. */
export type DeviceState = { readonly name: Exclude<StateName, "blocked"> } | { readonly name: "blocked"; readonly code: string };

/** Commit → applied latency in buckets; the last count is of those above all bounds. */
export interface Latency {
  readonly bounds_ms: readonly number[];
  readonly counts: readonly number[];
}

/** A report, in the words of the wire. */
export interface DeviceReport {
  readonly state: DeviceState;
  readonly cursor: Cursor | undefined;
  readonly digests: Digests;
  readonly queueDepth: number;
  readonly oldestPendingS: number;
  readonly deadLetters: number;
  readonly uploadRefused: boolean;
  readonly counters: ReadonlyMap<string, number>;
  readonly latency: Latency;
  /** Milliseconds since 1970. */
  readonly deviceTime: number;
  readonly clientVersion: string;
}

const latency: Reads<Latency> = (value, field) => {
  const from = object(value, field);
  return { bounds_ms: member(from, "bounds_ms", list(natural)), counts: member(from, "counts", list(natural)) };
};

const report: Reads<DeviceReport> = (value, field) => {
  const from = object(value, field);
  const name = member(from, "state", word(...STATES));
  return {
    state: name === "blocked" ? { name, code: member(from, "code", text) } : { name },
    cursor: member(from, "cursor", maybe(cursor)),
    digests: member(from, "digests", missingOr(new Map(), digests)),
    queueDepth: member(from, "queue_depth", natural),
    oldestPendingS: member(from, "oldest_pending_s", natural),
    deadLetters: member(from, "dead_letters", missingOr(0, natural)),
    uploadRefused: member(from, "upload_refused", missingOr(false, flag)),
    counters: member(from, "counters", missingOr(new Map(), dictionary(text, natural))),
    latency: member(from, "latency", missingOr({ bounds_ms: [], counts: [] }, latency)),
    deviceTime: member(from, "device_time", timestamp),
    clientVersion: member(from, "client_version", missingOr("", text)),
  };
};

export function parseReport(body: string): DeviceReport {
  return readText(body, report);
}
