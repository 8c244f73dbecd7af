/** Repair: find the ranges whose digests differ, fetch them, put them in place at exactly the commit they belong to. */

import { type Cursor, sameCursor } from "../protocol/cursor.js";
import { patience } from "./backoff.js";
import { type Comparison, type Fault, NO_NETWORK, type Result } from "./input.js";
import { forceSnapshot, want } from "./pull.js";
import type { State } from "./state.js";

/** More differing ranges of a collection than this: a snapshot is cheaper, unless they hold few rows. */
const RANGES_MAX = 128;
/** Rows that are fetched by ranges in any case. */
const ROWS_FEW = 2_000;
/** Repairs in a row before everything is fetched anew. */
const ATTEMPTS_MAX = 3;
/** Rest after that: a server that contradicts itself must not be asked for ever. */
const REST_MS = 600_000;
/** Between two attempts, growing with their number. */
const RETRY_MS = 1_000;

type Step =
  | { readonly is: "idle" }
  | { readonly is: "waiting"; readonly due: number; readonly collection: string }
  | { readonly is: "comparing"; readonly collection: string }
  | { readonly is: "fetching"; readonly collection: string; readonly ranges: readonly number[] }
  /** The rows are here, as of a commit that is not shown yet. */
  | { readonly is: "holding"; readonly collection: string; readonly ranges: readonly number[]; readonly at: Cursor };

const IDLE: Step = { is: "idle" };

/** Fetching everything is cheaper. */
export function isTooMuch(found: Comparison): boolean {
  return found.ranges.length > RANGES_MAX && found.rows > ROWS_FEW;
}

/** At most one repair at a time. */
export class Repair {
  step: Step = IDLE;
  todo: string[] = [];
  attempts = 0;
  restUntil = 0;
  isRecounting = false;

  /** `recountAt`: when the rows are counted anew; nobody tells a device that its storage was edited or forgets. */
  constructor(public recountAt: number) {}

  get stepDue(): number | undefined {
    return this.step.is === "waiting" ? this.step.due : undefined;
  }

  get deadline(): number | undefined {
    const recount = this.isRecounting ? undefined : this.recountAt;
    const { stepDue } = this;
    return stepDue === undefined || recount === undefined ? (stepDue ?? recount) : Math.min(stepDue, recount);
  }

  /** A call of its own is under way. */
  get isAsking(): boolean {
    return this.step.is === "comparing" || this.step.is === "fetching";
  }

  /** Another numbering is taken over: all that it would mend is compared there. */
  cancel(): void {
    this.todo = [];
    this.step = IDLE;
  }

  holdsAt(cursor: Cursor): boolean {
    return this.step.is === "holding" && sameCursor(this.step.at, cursor);
  }
}

export function beginRepair(s: State, now: number, collections: readonly string[]): void {
  const isBusy = s.repair.step.is !== "idle" || s.renumbering.run !== undefined;
  if (isBusy || now < s.repair.restUntil) return;
  s.repair.attempts += 1;
  if (s.repair.attempts > ATTEMPTS_MAX) {
    s.repair.attempts = 0;
    s.repair.restUntil = now + REST_MS;
    return forceSnapshot(s, now, "repair");
  }
  s.repair.todo = [...collections];
  nextCollection(s, now);
}

function nextCollection(s: State, now: number): void {
  const collection = s.repair.todo.pop();
  s.repair.step = collection === undefined ? IDLE : { is: "waiting", due: now, collection };
}

export function repairSucceeded(s: State): void {
  if (s.repair.step.is === "idle") s.repair.attempts = 0;
}

/** The rows are counted as soon as may be. */
export function recountSoon(s: State, now: number): void {
  s.repair.recountAt = Math.min(s.repair.recountAt, now);
}

function runRecount(s: State, now: number): void {
  if (s.repair.isRecounting || s.repair.recountAt > now) return;
  s.repair.recountAt = now + s.config.pollIntervalMs;
  if (s.cursor === undefined) return;
  s.repair.isRecounting = true;
  s.effects.push({ do: "recount" });
}

/** Rows that are not what was stored: somebody edited them, or the disk forgot. */
export function recounted(s: State, now: number, counted: { cursor: Cursor; altered: readonly string[] } | undefined): void {
  s.repair.isRecounting = false;
  if (counted === undefined || counted.altered.length === 0 || s.cursor?.epoch !== counted.cursor.epoch) return;
  s.counters.digestMismatches += 1;
  beginRepair(s, now, counted.altered);
}

export function runRepair(s: State, now: number): void {
  runRecount(s, now);
  const { step } = s.repair;
  if (step.is !== "waiting" || step.due > now) return;
  s.effects.push({ do: "fetch_sub_digests", collection: step.collection });
  s.repair.step = { is: "comparing", collection: step.collection };
}

export function compared(s: State, now: number, result: Result<Comparison>): void {
  const { step } = s.repair;
  if (step.is !== "comparing") throw new Error("sub-digests came that nobody asked for");
  const { collection } = step;
  s.repair.step = IDLE;
  if ("fault" in result) return repairLater(s, now, collection, result.fault);
  const found = result.ok;
  if (found.ranges.length === 0) {
    // The rows are right: it is their stored digest or a stored hash that is not.
    s.effects.push({ do: "replace_ranges", collection, ranges: [] });
    return nextCollection(s, now);
  }
  if (isTooMuch(found)) {
    s.repair.todo = [];
    return forceSnapshot(s, now, "repair");
  }
  s.effects.push({ do: "fetch_rows", collection, ranges: found.ranges });
  s.repair.step = { is: "fetching", collection, ranges: found.ranges };
}

function repairLater(s: State, now: number, collection: string, fault: Fault): void {
  const wait = RETRY_MS * Math.max(s.repair.attempts, 1) + s.dice.upTo(RETRY_MS);
  const asked = fault.retryAfterMs === undefined ? 0 : patience(fault.retryAfterMs);
  s.repair.step = { is: "waiting", due: now + Math.max(asked, wait), collection };
}

export function rowsFetched(s: State, now: number, result: Result<Cursor>): void {
  const { step } = s.repair;
  if (step.is !== "fetching") throw new Error("rows came that nobody asked for");
  const { collection, ranges } = step;
  s.repair.step = IDLE;
  if ("fault" in result) return repairLater(s, now, collection, result.fault);
  const at = result.ok;
  if (s.cursor === undefined) return;
  if (sameCursor(at, s.cursor)) {
    replace(s, now, collection, ranges);
  } else if (at.epoch === s.cursor.epoch && at.seq > s.cursor.seq) {
    s.repair.step = { is: "holding", collection, ranges, at };
    want(s, now + s.config.reorderWindowMs, "repair", at.seq);
  } else {
    // The cursor has passed these rows, or they are of another numbering: fetch them as they are now.
    repairLater(s, now, collection, NO_NETWORK);
  }
}

function replace(s: State, now: number, collection: string, ranges: readonly number[]): void {
  s.counters.rangesRepaired += ranges.length;
  s.effects.push({ do: "replace_ranges", collection, ranges });
  nextCollection(s, now);
}

/** The cursor moved on by one commit; rows that wait for it are put in place before the next. */
export function repairReached(s: State, now: number): void {
  const { step } = s.repair;
  if (s.cursor === undefined || step.is !== "holding" || !sameCursor(step.at, s.cursor)) return;
  replace(s, now, step.collection, step.ranges);
}

/** The cursor jumped, or fell back: rows that wait are in place now, or useless. */
export function repairOvertaken(s: State, now: number): void {
  repairReached(s, now);
  const { step } = s.repair;
  if (step.is === "holding") repairLater(s, now, step.collection, NO_NETWORK);
}
