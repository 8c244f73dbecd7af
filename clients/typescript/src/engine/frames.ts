/** Frames and heads: commits in order, gaps, and what a head says about the cursor. */

import { type Cursor, sameCursor } from "../protocol/cursor.js";
import { EMPTY_DIGEST } from "../protocol/digest.js";
import { type Digests, type Head } from "../protocol/head.js";
import type { Part, ReadyCommit } from "./buffer.js";
import { dropConfirmedWant, dropNeedlessWant, want } from "./pull.js";
import { beginRepair, repairOvertaken, repairReached, repairSucceeded } from "./repair.js";
import type { State } from "./state.js";

/** A local database that refuses is tried again after this. */
const STORAGE_RETRY_MS = 2_000;
/** Nobody puts a server back to a backup faster than this. */
const RESTORE_TAKES_MS = 30_000;

export function frameArrived(s: State, now: number, part: Part): void {
  const { frame } = part;
  s.counters.frames += 1;
  if (s.cursor !== undefined && s.cursor.epoch === frame.epoch) {
    if (frame.seq === s.cursor.seq && frame.tag !== s.cursor.tag) return otherNumbering(s, now, frame.epoch, frame.seq);
    if (frame.seq <= s.cursor.seq) {
      s.counters.framesDropped += 1;
      return;
    }
  } else if (s.cursor !== undefined) {
    otherNumbering(s, now, frame.epoch, frame.seq);
  }
  const taken = s.buffer.take(now, mayAdvance(s) ? s.cursor : undefined, part);
  if (typeof taken === "object") {
    handOut(s, now, taken);
    return advance(s, now);
  }
  if (taken === "dropped") s.counters.framesDropped += 1;
  watchGap(s);
}

/**
 * After a new subscription frames wait until the server or its head has confirmed the cursor, unless that was a moment ago: a server restored
 * from a backup may number other commits alike. A repair waits for the cursor to be exactly where its rows are.
 */
function mayAdvance(s: State): boolean {
  if (s.cursor === undefined) return false;
  const lately = s.confirmedAt !== undefined && s.lastNow - s.confirmedAt < RESTORE_TAKES_MS;
  const isFree = s.renumbering.run === undefined && !s.repair.holdsAt(s.cursor);
  return !s.inDoubt && (lately || s.pull.knowsCursor) && isFree;
}

function handOut(s: State, now: number, commit: ReadyCommit): void {
  if (s.cursor === undefined || commit.cursor.epoch !== s.cursor.epoch || commit.cursor.seq !== s.cursor.seq + 1) {
    throw new Error("a commit out of order");
  }
  s.cursor = commit.cursor;
  s.isHeld = false;
  dropNeedlessWant(s, commit.cursor);
  s.effects.push({ do: "apply", commit });
  repairReached(s, now);
  if (s.pull.isConfirmed) s.confirmedAt = now;
}

/** Hands out every commit that is next in line. */
export function advance(s: State, now: number): void {
  while (mayAdvance(s)) {
    const commit = s.buffer.nextReady(s.cursor);
    if (commit === undefined) break;
    handOut(s, now, commit);
  }
  watchGap(s);
}

function watchGap(s: State): void {
  if (s.cursor === undefined) return;
  const waiting = s.buffer.waiting(s.cursor);
  if (waiting === undefined) return;
  // Before the first confirmation after a subscription nothing says that frames are missing: they were never sent here.
  want(s, waiting.since + s.config.reorderWindowMs, s.pull.knowsCursor ? "gap" : "returned", waiting.seq);
}

export function headArrived(s: State, now: number, head: Head): void {
  for (const collection of head.digests.keys()) {
    if (s.collections.includes(collection)) continue;
    s.collections.push(collection);
    s.effects.push({ do: "subscribe", collection });
    want(s, now, "renumbered");
  }
  s.head = { head, at: now };
  lookAtHead(s, now);
}

/** What the newest head means for the cursor as it is now. */
export function lookAtHead(s: State, now: number): void {
  const { cursor } = s;
  if (s.head === undefined || cursor === undefined) return;
  const { head, at } = s.head;
  if (head.epoch !== cursor.epoch || (head.seq === cursor.seq && head.tag !== cursor.tag)) {
    return otherNumbering(s, now, head.epoch, head.seq);
  }
  if (head.seq === cursor.seq) {
    s.expected = { cursor, digests: head.digests };
    s.isHeld = head.heldSince !== undefined;
    if (at === now) {
      dropConfirmedWant(s);
      s.confirm(now);
      advance(s, now);
    }
    checkDigests(s, now);
  } else if (head.seq > cursor.seq) {
    if (head.pullWithinMs !== undefined) {
      // A head that allows more time than a poll would take is not believed.
      want(s, now + s.dice.upTo(Math.min(head.pullWithinMs, s.config.pollIntervalMs)), "pull", head.seq);
    } else {
      want(s, now + s.config.reorderWindowMs, "head_ahead", head.seq);
    }
  }
}

/** One question to the server for each other numbering that MQTT speaks of: only HTTP decides. */
function otherNumbering(s: State, now: number, epoch: string, seq: number): void {
  const isOtherEpoch = s.cursor !== undefined && s.cursor.epoch !== epoch;
  if (s.askedAbout?.epoch === epoch && (s.askedAbout.seq === seq || isOtherEpoch)) return;
  s.inDoubt ||= !isOtherEpoch;
  s.askedAbout = { epoch, seq };
  want(s, now + s.dice.upTo(s.config.returnSpreadMs), "renumbered");
}

export function applied(s: State, now: number, cursor: Cursor, digests: Digests): void {
  s.shown = { cursor, digests };
  checkDigests(s, now);
  if (isProven(s)) repairSucceeded(s);
}

/** What is shown has the digests that the server gave for this very commit. */
function isProven(s: State): boolean {
  if (s.shown === undefined || s.truth === undefined) return false;
  return sameCursor(s.shown.cursor, s.truth.cursor) && differing(s.shown.digests, s.truth.digests).length === 0;
}

export function checkDigests(s: State, now: number): void {
  if (s.shown === undefined || s.expected === undefined || !sameCursor(s.shown.cursor, s.expected.cursor)) return;
  const found = differing(s.shown.digests, s.expected.digests);
  s.truth = s.expected;
  s.expected = undefined;
  s.comparedAt = now;
  if (found.length === 0) return repairSucceeded(s);
  s.counters.digestMismatches += 1;
  beginRepair(s, now, found);
}

export function applyFailed(s: State, now: number, cursor: Cursor | undefined, fault: "base_missing" | "storage"): void {
  s.cursor = cursor;
  s.buffer.clear();
  repairOvertaken(s, now);
  want(s, fault === "storage" ? now + STORAGE_RETRY_MS : now, "repair");
}

/** The collections whose digests are not equal, in order; one that is not named is empty. */
export function differing(ours: Digests, theirs: Digests): string[] {
  const names = [...new Set([...ours.keys(), ...theirs.keys()])].sort();
  return names.filter((name) => (ours.get(name) ?? EMPTY_DIGEST) !== (theirs.get(name) ?? EMPTY_DIGEST));
}
