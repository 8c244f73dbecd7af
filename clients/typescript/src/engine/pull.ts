/** Asking `/changes`: exactly one call at a time, for one reason, at a moment that a crowd does not share. */

import { type Cursor, sameCursor } from "../protocol/cursor.js";
import { type Digests, headCursor } from "../protocol/head.js";
import { Backoff } from "./backoff.js";
import { type Ask, isFallback, type Reason } from "./effect.js";
import { advance, checkDigests, lookAtHead } from "./frames.js";
import { type CatchUpOutcome, type Fault, NO_NETWORK, NO_USE, type Resume } from "./input.js";
import { hurry } from "./link.js";
import { fetchHead, proveDigests, renumberingCaughtUp } from "./renumber.js";
import { recountSoon, repairOvertaken } from "./repair.js";
import type { State } from "./state.js";

const RETRY_BASE_MS = 500;
const RETRY_CAP_MS = 60_000;
const REFUSED_BASE_MS = 10_000;
const REFUSED_CAP_MS = 300_000;
/** How long the first call waits for MQTT, so that nothing is missed between the two. */
const CONNECT_PATIENCE_MS = 2_000;
/** How far a retained head may lag behind the changes: one that equals the cursor right after a return says little of what was missed. */
const HEAD_LAG_MS = 2_000;

/** A call that is due at some time. */
interface Wanted {
  due: number;
  readonly reason: Reason;
  /** Frames that bring the cursor here make it needless. */
  readonly untilSeq: number | undefined;
}

/** What runs now: a call of `/changes`; of `/head` for one of two purposes; or another numbering is compared, range by range. */
export type Running = { readonly is: "changes"; readonly ask: Ask } | { readonly is: "head"; readonly purpose: HeadFor } | { readonly is: "ranges" };
/** Perhaps less than a snapshot will do; or MQTT brings no head, and its digests prove the rows. */
export type HeadFor = "renumbering" | "digests";

/** The one call and what is known of the way to the server. */
export class Pull {
  running: Running | undefined;
  wanted: Wanted | undefined;
  resume: string | undefined;
  /** What is staged, or being staged, is all there is. */
  stagedIsSnapshot: boolean;
  /** Must everything be fetched, whatever the cursor? */
  forcedSnapshot = false;
  needsSnapshot = false;
  blocked: string | undefined;
  readonly retry = new Backoff(RETRY_BASE_MS, RETRY_CAP_MS);
  readonly slow = new Backoff(REFUSED_BASE_MS, REFUSED_CAP_MS);
  unreachable = false;
  /** Until when the device counts as just returned: what comes by HTTP then is no fallback. `undefined`: nothing has confirmed its cursor since. */
  awayUntil: number | undefined;
  /** The cursor is the server's own since the last subscription. */
  knowsCursor = false;
  #everConfirmed = false;
  mqttDown = false;
  pollAt: number;
  /** When the call was begun that runs now. */
  askedAt: number;
  /** The highest number that a verdict had given by then. */
  promised: number | undefined;

  /** The first call waits a little for MQTT: subscribe first, then read. */
  constructor(
    now: number,
    hasRows: boolean,
    resume: Resume | undefined,
    readonly pollIntervalMs: number,
  ) {
    this.wanted = { due: now + CONNECT_PATIENCE_MS, reason: hasRows ? "returned" : "first", untilSeq: undefined };
    this.stagedIsSnapshot = resume?.snapshot ?? false;
    this.resume = resume?.position;
    this.pollAt = now + pollIntervalMs;
    this.askedAt = now;
  }

  get isConfirmed(): boolean {
    return this.knowsCursor && !this.isBehind;
  }

  /** Something is known to be missing here. Frames that are only late are no reason to tell the cashier anything. */
  get isBehind(): boolean {
    const isMissing = (reason: Reason): boolean => reason !== "poll" && reason !== "requested" && reason !== "returned";
    const runs = this.running?.is === "changes" && isMissing(this.running.ask.reason);
    return runs || (this.unreachable && this.wanted !== undefined && isMissing(this.wanted.reason));
  }

  get isFirst(): boolean {
    return !this.#everConfirmed;
  }

  mqttWentDown(): void {
    this.mqttDown = true;
    this.knowsCursor = false;
  }

  confirm(now: number): void {
    this.knowsCursor = true;
    this.#everConfirmed = true;
    this.awayUntil ??= now + HEAD_LAG_MS;
  }

  /** A new subscription of a device that is just back: what was confirmed before it may have been overtaken before frames flow. */
  subscribed(now: number): void {
    if (this.isAway(now)) this.awayUntil = undefined;
    this.mqttDown = false;
    this.knowsCursor = false;
  }

  isAway(now: number): boolean {
    return this.awayUntil === undefined || now < this.awayUntil;
  }

  networkLost(): void {
    this.unreachable = true;
    this.awayUntil = undefined;
    this.knowsCursor = false;
  }

  hurry(now: number): void {
    this.retry.reset();
    if (this.wanted !== undefined && this.blocked === undefined) this.wanted.due = Math.min(this.wanted.due, now);
  }

  get deadline(): number | undefined {
    return this.running === undefined ? (this.wanted?.due ?? this.pollAt) : undefined;
  }

  /** The server was reached and gave a usable answer. */
  reached(): void {
    this.retry.reset();
    this.slow.reset();
    this.unreachable = false;
    this.blocked = undefined;
  }
}

/** Notes that a call is wanted. A pull that the head spreads over time is not overtaken by a gap that it will fill. */
export function want(s: State, due: number, reason: Reason, untilSeq?: number): void {
  const fresh: Wanted = { due, reason, untilSeq };
  const old = s.pull.wanted;
  const waitsForGap = (of: Reason): boolean => of === "gap" || of === "head_ahead";
  if (old === undefined) {
    s.pull.wanted = fresh;
  } else if (s.pull.blocked !== undefined || (old.reason === "pull" && waitsForGap(reason))) {
    return;
  } else if (reason === "pull" && waitsForGap(old.reason)) {
    s.pull.wanted = fresh;
  } else {
    const both = old.untilSeq !== undefined && untilSeq !== undefined ? Math.max(old.untilSeq, untilSeq) : undefined;
    s.pull.wanted = { due: Math.min(old.due, due), reason: old.due <= due ? old.reason : reason, untilSeq: both };
  }
}

/** A head that equals the cursor says that nothing was missed. */
export function dropConfirmedWant(s: State): void {
  const reason = s.pull.wanted?.reason;
  if (reason === "returned" || reason === "head_ahead") s.pull.wanted = undefined;
}

/** The cursor moved: a call for frames that have come meanwhile is needless. */
export function dropNeedlessWant(s: State, cursor: Cursor): void {
  const until = s.pull.wanted?.untilSeq;
  if (until !== undefined && cursor.seq >= until) s.pull.wanted = undefined;
}

export function runPull(s: State, now: number): void {
  const due = s.pull.deadline;
  if (due === undefined || due > now) return;
  const wanted = s.pull.wanted;
  s.pull.wanted = undefined;
  s.pull.pollAt = now + s.pull.pollIntervalMs;
  if (wanted === undefined && headConfirms(s, now)) {
    s.counters.pollsSkipped += 1;
    return;
  }
  if (s.pull.needsSnapshot && s.cursor !== undefined && !s.pull.forcedSnapshot) return fetchHead(s, "renumbering");
  askFor(s, now, wanted?.reason ?? "poll");
}

function headConfirms(s: State, now: number): boolean {
  if (!s.link.isUp || !s.pull.knowsCursor || s.head === undefined) return false;
  return now - s.head.at < s.config.headFreshMs && sameCursor(s.cursor, headCursor(s.head.head));
}

function askFor(s: State, now: number, reason: Reason): void {
  const { pull } = s;
  if (pull.forcedSnapshot && !pull.stagedIsSnapshot && pull.resume !== undefined) {
    // Not when the snapshot was wished for: a call that joined these rows may have been under way then.
    pull.resume = undefined;
    s.effects.push({ do: "drop_staged" });
  }
  const { resume } = pull;
  // A broken snapshot goes on as one, also after a restart: the server must count its deletions from where it was made, not from the cursor.
  const goesOnAsSnapshot = resume !== undefined && pull.stagedIsSnapshot;
  const after = pull.forcedSnapshot || goesOnAsSnapshot ? undefined : s.cursor;
  if (resume === undefined) pull.stagedIsSnapshot = after === undefined;
  s.counters.catchUps += 1;
  if (after === undefined) s.counters.snapshots += 1;
  if (reason === "poll") s.counters.polls += 1;
  if (reason === "gap") s.counters.gaps += 1;
  const counts = isFallback(reason) && !pull.isAway(now) && after !== undefined;
  begin(s, { after, resume, keepStaged: resume !== undefined, overRanges: false, reason, isFallback: counts });
}

export function begin(s: State, ask: Ask): void {
  if (s.pull.running !== undefined) throw new Error("two calls of /changes at once");
  s.pull.askedAt = s.lastNow;
  s.pull.promised = s.upload.promised;
  s.pull.running = { is: "changes", ask };
  s.effects.push({ do: "catch_up", ask });
}

export function caughtUp(s: State, now: number, outcome: CatchUpOutcome): void {
  s.counters.ended += 1;
  const { running } = s.pull;
  if (running?.is !== "changes") throw new Error("a call of /changes ended that was not begun");
  const { ask } = running;
  s.pull.running = undefined;
  s.pull.pollAt = now + s.pull.pollIntervalMs;
  if (ask.overRanges) return renumberingCaughtUp(s, now, outcome);
  switch (outcome.is) {
    case "complete":
      reached(s);
      return complete(s, now, ask, outcome.to, outcome.digests);
    case "unchanged":
      return unchanged(s, now, ask);
    case "broken":
      s.pull.resume = outcome.resume ?? ask.resume;
      return failed(s, now, ask.reason, NO_NETWORK);
    case "snapshot_required":
      reached(s);
      return snapshotRequired(s, now, ask);
    case "refused":
      return refused(s, now, ask.reason, outcome.code);
    case "failed":
      return failed(s, now, ask.reason, outcome.fault);
  }
}

export function reached(s: State): void {
  s.inDoubt = false;
  s.pull.reached();
}

function unchanged(s: State, now: number, ask: Ask): void {
  reached(s);
  s.counters.notModified += 1;
  if (ask.keepStaged) return beginAgain(s, now, ask.reason);
  // Frames may have moved the cursor on while the answer was on its way: it holds for what was asked.
  if (!sameCursor(ask.after, s.cursor)) return;
  if (ask.after !== undefined) compareWithEnd(s, ask.after);
  s.confirm(now);
  advance(s, now);
  proveDigests(s, now);
}

function complete(s: State, now: number, ask: Ask, to: Cursor, digests: Digests): void {
  const { pull } = s;
  pull.resume = undefined;
  const snapshot = pull.stagedIsSnapshot;
  if (!snapshot) compareWithEnd(s, to);
  const isBehind = s.cursor !== undefined && s.cursor.epoch === to.epoch && to.seq < s.cursor.seq;
  if (isBehind && snapshot) {
    // A cached snapshot from before: go on from its end until it has caught up, then show all at once.
    s.counters.catchUps += 1;
    return begin(s, { after: to, resume: undefined, keepStaged: true, overRanges: false, reason: ask.reason, isFallback: false });
  }
  const isHere = sameCursor(s.cursor, to);
  if (isBehind || (isHere && !snapshot)) {
    s.effects.push({ do: "drop_staged" });
    if (!isHere) return;
    s.expected = { cursor: to, digests };
    s.confirm(now);
    advance(s, now);
    return checkDigests(s, now);
  }
  const isRenumbered = s.cursor !== undefined && s.cursor.epoch !== to.epoch;
  pull.stagedIsSnapshot = false;
  pull.forcedSnapshot &&= !snapshot;
  pull.needsSnapshot = false;
  s.effects.push({ do: "show", to, snapshot, isFallback: ask.isFallback });
  s.expected = { cursor: to, digests };
  const hadRows = s.cursor !== undefined;
  moveTo(s, now, to, isRenumbered);
  // Nobody vouches for what this server remembers of the time before: hand the operations in again, which is safe.
  if (snapshot && hadRows && !isRenumbered) s.effects.push({ do: "requeue" });
  s.confirm(now);
  if (snapshot && !headConfirms(s, now)) {
    // It may have been a cached one.
    want(s, now, "returned");
    pull.awayUntil = undefined;
  }
  advance(s, now);
  lookAtHead(s, now);
}

/** An answer that is no snapshot ends where the server was: what it does not have there although it once did, a restore took from it. */
function compareWithEnd(s: State, to: Cursor): void {
  s.buffer.dropDisowned(to, s.pull.askedAt);
  const { promised } = s.pull;
  s.pull.promised = undefined;
  if (promised !== undefined && promised > to.seq) {
    s.upload.forgetPromises();
    s.effects.push({ do: "requeue" });
  }
}

/** The cursor is another one from here on. */
export function moveTo(s: State, now: number, to: Cursor, isRenumbered: boolean): void {
  s.cursor = to;
  s.isHeld = false;
  s.buffer.dropShown(to);
  dropNeedlessWant(s, to);
  repairOvertaken(s, now);
  if (s.head?.head.epoch !== to.epoch) s.head = undefined;
  if (isRenumbered) {
    s.counters.renumberings += 1;
    s.upload.forgetPromises();
    s.effects.push({ do: "requeue" });
  }
}

function snapshotRequired(s: State, now: number, ask: Ask): void {
  if (ask.resume !== undefined || ask.keepStaged) return beginAgain(s, now, ask.reason);
  s.pull.needsSnapshot = true;
  s.pull.knowsCursor = false;
  want(s, now, "renumbered");
}

/** The server no longer knows where the staged rows end. */
function beginAgain(s: State, now: number, reason: Reason): void {
  s.pull.resume = undefined;
  s.effects.push({ do: "drop_staged" });
  failed(s, now, reason, NO_USE);
}

export function refused(s: State, now: number, reason: Reason, code: string): void {
  s.pull.unreachable = false;
  s.pull.blocked = code;
  s.pull.knowsCursor = false;
  s.pull.wanted = { due: now + s.pull.slow.nextMs(s.dice), reason, untilSeq: undefined };
}

export function failed(s: State, now: number, reason: Reason, fault: Fault): void {
  if (!fault.reached) {
    s.pull.unreachable = true;
    if (!s.link.isUp) s.pull.awayUntil = undefined;
  }
  const wait = s.pull.retry.nextMs(s.dice, fault.retryAfterMs);
  s.pull.wanted = undefined;
  want(s, now + wait, reason);
}

export function syncRequested(s: State, now: number): void {
  hurry(s, now);
  recountSoon(s, now);
  want(s, now, "requested");
  if (s.pull.wanted !== undefined) s.pull.wanted.due = Math.min(s.pull.wanted.due, now);
}

export function resyncRequested(s: State, now: number): void {
  forceSnapshot(s, now, "requested");
}

/** Everything anew; what is shown stays until all of it is there. */
export function forceSnapshot(s: State, now: number, reason: Reason): void {
  s.pull.forcedSnapshot = true;
  want(s, now, reason);
}
