/** Replays `golden/session/`: what the engine in Rust was told and what it asked for, step by step. */

import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

import type { Effect } from "../src/engine/effect.js";
import type { CatchUpOutcome, Fault, Input, QueuedOperation, Result, UploadOutcome } from "../src/engine/input.js";
import { DEFAULT_CONFIG, Session } from "../src/engine/session.js";
import { type Cursor, cursorText, parseCursor } from "../src/protocol/cursor.js";
import { parseFrame } from "../src/protocol/frame.js";
import { parseHead } from "../src/protocol/head.js";
import { parseUploadAnswer, type Verdict } from "../src/protocol/upload.js";

/** A JSON object of a trace, whose fields are named as in the sources in Rust. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
type Told = Record<string, any>;

interface Step {
  readonly now: number;
  readonly told: Told;
  readonly asked: Told[];
  readonly then: Told;
}

const directory = new URL("../../../golden/session/", import.meta.url);

function cursorOf(raw: string | null): Cursor | undefined {
  return raw === null ? undefined : parseCursor(raw);
}

function certain(raw: string): Cursor {
  const cursor = parseCursor(raw);
  if (cursor === undefined) throw new Error(`${raw} is no cursor`);
  return cursor;
}

function faultOf(raw: Told): Fault {
  return { retryAfterMs: raw.retry_after_ms ?? undefined, reached: raw.reached };
}

function resultOf<T>(told: Told, ok: () => T): Result<T> {
  return told.fault === undefined ? { ok: ok() } : { fault: faultOf(told.fault) };
}

function verdictsOf(raw: unknown): readonly Verdict[] {
  return parseUploadAnswer(JSON.stringify({ verdicts: raw }));
}

function outcomeOf(raw: Told): CatchUpOutcome {
  switch (raw.is) {
    case "complete":
      return { is: "complete", to: certain(raw.to), digests: new Map(Object.entries<string>(raw.digests)) };
    case "broken":
      return { is: "broken", resume: raw.resume ?? undefined };
    case "failed":
      return { is: "failed", fault: faultOf(raw.fault) };
    default:
      return raw as CatchUpOutcome;
  }
}

function uploadedOf(raw: Told): UploadOutcome {
  if (raw.is === "answered") return { is: "answered", verdicts: verdictsOf(raw.verdicts) };
  return raw.is === "failed" ? { is: "failed", fault: faultOf(raw.fault) } : (raw as UploadOutcome);
}

function inputOf(told: Told): Input {
  switch (told.is) {
    case "frame_arrived":
      return { is: "frame_arrived", collection: told.collection, frame: parseFrame(JSON.stringify(told.frame)) };
    case "head_arrived":
      return { is: "head_arrived", head: parseHead(JSON.stringify(told.head)) };
    case "caught_up":
      return { is: "caught_up", outcome: outcomeOf(told.outcome) };
    case "head_fetched":
      return { is: "head_fetched", result: resultOf(told, () => parseHead(JSON.stringify(told.head))) };
    case "applied":
      return { is: "applied", cursor: certain(told.cursor), digests: new Map(Object.entries<string>(told.digests)) };
    case "apply_failed":
      return { is: "apply_failed", cursor: cursorOf(told.cursor), fault: told.fault };
    case "compared":
      return { is: "compared", result: resultOf(told, () => ({ at: certain(told.at), ranges: told.ranges, rows: told.rows })) };
    case "rows_fetched":
      return { is: "rows_fetched", result: resultOf(told, () => certain(told.at)) };
    case "recounted":
      return { is: "recounted", counted: told.cursor === undefined ? undefined : { cursor: certain(told.cursor), altered: told.altered } };
    case "operation_committed":
      return { is: "operation_committed", operation: told.operations[0] as QueuedOperation };
    case "uploaded":
      return { is: "uploaded", outcome: uploadedOf(told.outcome) };
    default:
      return told as Input;
  }
}

/** An effect in the spelling of the trace. */
function effectText(effect: Effect): Told {
  switch (effect.do) {
    case "catch_up": {
      const { after, resume, keepStaged, overRanges, reason, isFallback } = effect.ask;
      const spelt = { keep_staged: keepStaged, over_ranges: overRanges, reason, is_fallback: isFallback };
      return { do: "catch_up", ask: { after: after ? cursorText(after) : null, resume: resume ?? null, ...spelt } };
    }
    case "apply": {
      const { cursor, ops, parts } = effect.commit;
      return { do: "apply", cursor: cursorText(cursor), ops, parts: parts.map(({ collection, frame }) => [collection, frame.part]) };
    }
    case "show":
      return { do: "show", to: cursorText(effect.to), snapshot: effect.snapshot, is_fallback: effect.isFallback };
    case "adopt":
    case "renumber":
      return { do: effect.do, to: cursorText(effect.to) };
    case "settle":
      return { do: "settle", verdicts: effect.verdicts.map(({ id, status, seq, code }) => ({ id, status, seq: seq ?? null, code: code ?? null })) };
    default:
      return { ...effect };
  }
}

function statusText(session: Session): Told {
  const { state, cursor, confirmedAt, queueDepth, oldestPending, uploadRefused } = session.status;
  return {
    state: state.name === "blocked" ? `blocked:${state.code}` : state.name,
    cursor: cursor === undefined ? null : cursorText(cursor),
    confirmed_at: confirmedAt ?? null,
    queue_depth: queueDepth,
    oldest_pending: oldestPending ?? null,
    upload_refused: uploadRefused,
    deadline: session.nextDeadline ?? null,
  };
}

function begin(first: Told): Session {
  const { cursor, resume, queue } = first.known;
  const known = { cursor: cursorOf(cursor), digests: new Map<string, string>(), resume: resume ?? undefined, queue };
  return new Session(0, { ...DEFAULT_CONFIG, seed: BigInt(first.seed) }, known);
}

describe("the session answers as the one in Rust", () => {
  const files = readdirSync(directory);

  it("has histories to replay", () => expect(files.length).toBeGreaterThanOrEqual(20));

  it.each(files)("%s", (file) => {
    const lines = readFileSync(new URL(file, directory), "utf8").trimEnd().split("\n").map((line) => JSON.parse(line) as Told);
    const [first, ...rest] = lines;
    const session = begin(first!);
    for (const [n, line] of rest.slice(0, -1).entries()) {
      const { now, told, asked, then } = line as unknown as Step;
      const effects = session.handle(now, inputOf(told)).map(effectText);
      const where = `${file}, line ${n + 2}: ${JSON.stringify(told)}`;
      expect(effects, where).toEqual(asked);
      expect(statusText(session), where).toEqual(then);
    }
    const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    const counters = Object.fromEntries(Object.entries(session.counters).map(([name, value]) => [snake(name), value]));
    expect(counters).toEqual(rest.at(-1)?.counters);
  });
});
