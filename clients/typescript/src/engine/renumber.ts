/**
 * Another numbering: compare with the server, fetch only the ranges that differ, and show them together with its cursor.
 *
 * Everything that is fetched is of the head that it began with, or later; one catch-up from that head on top makes it whole. Nothing is shown
 * before: a device goes from a state that the server had to a state that it has.
 */

import { type Cursor, sameCursor } from "../protocol/cursor.js";
import { type Digests, type Head, headCursor } from "../protocol/head.js";
import { advance, differing, headArrived, lookAtHead } from "./frames.js";
import { type CatchUpOutcome, type Comparison, type Fault, NO_NETWORK, NO_USE, type Result } from "./input.js";
import { begin, failed, type HeadFor, moveTo, reached, refused, want } from "./pull.js";
import { isTooMuch } from "./repair.js";
import type { State } from "./state.js";

/** Comparisons that came to nothing, in a row, before everything is fetched anew. */
const ATTEMPTS_MAX = 3;

interface Run {
  /** The head that it began with. */
  readonly base: Head;
  /** Collections not yet compared. */
  readonly todo: string[];
  /** Ranges not yet fetched. */
  readonly fetch: { readonly collection: string; readonly ranges: readonly number[] }[];
  /** How many ranges differ. */
  ranges: number;
}

/** At most one at a time, while what runs keeps every other call away. */
export class Renumbering {
  run: Run | undefined;
  attempts = 0;
}

export function fetchHead(s: State, purpose: HeadFor): void {
  if (s.pull.running !== undefined) throw new Error("a call of /head beside another");
  s.pull.running = { is: "head", purpose };
  s.effects.push({ do: "fetch_head" });
}

/** A `304` says nothing of the rows. When no head has come over MQTT for long, its digests are asked for. */
export function proveDigests(s: State, now: number): void {
  const lately = s.comparedAt !== undefined && now - s.comparedAt < Math.floor(s.pull.pollIntervalMs / 2);
  if (!lately && s.pull.running === undefined) fetchHead(s, "digests");
}

export function headFetched(s: State, now: number, result: Result<Head>): void {
  const { running } = s.pull;
  if (running?.is !== "head") throw new Error("a call of /head ended that was not begun");
  s.pull.running = undefined;
  if ("fault" in result) {
    // Digests are asked for by the next poll again.
    if (running.purpose === "renumbering") failed(s, now, "renumbered", result.fault);
    return;
  }
  reached(s);
  if (running.purpose === "renumbering") renumber(s, now, result.ok);
  else headArrived(s, now, result.ok);
}

function renumber(s: State, now: number, head: Head): void {
  // Nothing to compare with, or too old for changes of this numbering.
  if (s.shown === undefined || s.shown.cursor.epoch === head.epoch) return giveUpRanges(s, now);
  if (!sameCursor(s.cursor, s.shown.cursor) || s.repair.isAsking) {
    return want(s, now + s.config.reorderWindowMs, "renumbered");
  }
  const todo = differing(s.shown.digests, head.digests);
  if (todo.length === 0) {
    s.effects.push({ do: "adopt", to: headCursor(head) });
    return renumbered(s, now, headCursor(head));
  }
  s.renumbering.attempts += 1;
  if (s.renumbering.attempts > ATTEMPTS_MAX) return giveUpRanges(s, now);
  s.repair.cancel();
  s.effects.push({ do: "drop_staged" });
  s.pull.running = { is: "ranges" };
  s.renumbering.run = { base: head, todo, fetch: [], ranges: 0 };
  goOn(s);
}

/** Everything is fetched anew. */
function giveUpRanges(s: State, now: number): void {
  endRanges(s);
  s.renumbering.attempts = 0;
  s.pull.forcedSnapshot = true;
  want(s, now, "renumbered");
}

function endRanges(s: State): void {
  if (s.renumbering.run === undefined) return;
  s.renumbering.run = undefined;
  s.pull.running = undefined;
  s.effects.push({ do: "drop_staged" });
}

function goOn(s: State): void {
  const { run } = s.renumbering;
  if (run === undefined) return;
  const collection = run.todo.at(-1);
  const fetch = run.fetch.at(-1);
  if (collection !== undefined) {
    s.effects.push({ do: "fetch_sub_digests", collection });
  } else if (fetch !== undefined) {
    s.effects.push({ do: "fetch_rows", collection: fetch.collection, ranges: fetch.ranges });
  } else {
    s.pull.running = undefined;
    s.counters.catchUps += 1;
    const after = headCursor(run.base);
    begin(s, { after, resume: undefined, keepStaged: false, overRanges: true, reason: "renumbered", isFallback: false });
  }
}

/** Whether an answer is of the numbering that is being taken over, and no older than its beginning. */
function continues(s: State, at: Cursor): boolean {
  const base = s.renumbering.run?.base;
  return base !== undefined && at.epoch === base.epoch && at.seq >= base.seq;
}

export function renumberingCompared(s: State, now: number, result: Result<Comparison>): void {
  if ("fault" in result) return rangesFailed(s, now, result.fault);
  const found = result.ok;
  if (!continues(s, found.at)) return rangesFailed(s, now, NO_USE);
  if (isTooMuch(found)) return giveUpRanges(s, now);
  const { run } = s.renumbering;
  const collection = run?.todo.pop();
  if (run !== undefined && collection !== undefined) {
    run.ranges += found.ranges.length;
    if (found.ranges.length > 0) run.fetch.push({ collection, ranges: found.ranges });
  }
  goOn(s);
}

export function renumberingFetched(s: State, now: number, result: Result<Cursor>): void {
  if ("fault" in result) return rangesFailed(s, now, result.fault);
  if (!continues(s, result.ok)) return rangesFailed(s, now, NO_USE);
  s.renumbering.run?.fetch.pop();
  goOn(s);
}

/** What came since the comparison began is here, or nothing did: all of it can be shown. */
export function renumberingCaughtUp(s: State, now: number, outcome: CatchUpOutcome): void {
  switch (outcome.is) {
    case "complete":
      return continues(s, outcome.to) ? showRanges(s, now, outcome.to, outcome.digests) : rangesFailed(s, now, NO_USE);
    case "unchanged":
      return showRanges(s, now, undefined, undefined);
    case "refused":
      endRanges(s);
      return refused(s, now, "renumbered", outcome.code);
    case "failed":
      return rangesFailed(s, now, outcome.fault);
    case "broken":
      return rangesFailed(s, now, NO_NETWORK);
    case "snapshot_required":
      return rangesFailed(s, now, NO_USE);
  }
}

function rangesFailed(s: State, now: number, fault: Fault): void {
  endRanges(s);
  if (!fault.reached) s.renumbering.attempts = Math.max(0, s.renumbering.attempts - 1);
  failed(s, now, "renumbered", fault);
}

function showRanges(s: State, now: number, end: Cursor | undefined, digests: Digests | undefined): void {
  const { run } = s.renumbering;
  if (run === undefined) throw new Error("a catch-up over ranges belongs to a comparison");
  s.renumbering.run = undefined;
  const to = end ?? headCursor(run.base);
  reached(s);
  s.counters.rangesRepaired += run.ranges;
  s.effects.push({ do: "renumber", to });
  s.expected = { cursor: to, digests: digests ?? run.base.digests };
  renumbered(s, now, to);
}

function renumbered(s: State, now: number, to: Cursor): void {
  s.renumbering.attempts = 0;
  s.pull.needsSnapshot = false;
  moveTo(s, now, to, true);
  s.confirm(now);
  advance(s, now);
  lookAtHead(s, now);
}
