/** Frames that cannot be shown yet: out of order, or a commit of which parts are missing. */

import type { Cursor } from "../protocol/cursor.js";
import type { Frame } from "../protocol/frame.js";

/** A frame and the collection of the topic it came on. */
export interface Part {
  readonly collection: string;
  readonly frame: Frame;
}

/** A commit with all its parts, next in line. */
export interface ReadyCommit {
  /** The cursor after it. */
  readonly cursor: Cursor;
  /** Server time of the commit, milliseconds since 1970. */
  readonly at: number;
  readonly ops: readonly string[];
  readonly parts: readonly Part[];
}

/** What the buffer says of a frame. */
export type Taken = ReadyCommit | "kept" | "dropped";

/** Commits held at most: beyond it the frame is dropped and a catch-up fills the gap. */
const COMMITS_MAX = 1_024;

interface Assembly {
  readonly epoch: string;
  readonly seq: number;
  readonly firstAt: number;
  parts: Part[];
}

function readyCommit(parts: readonly Part[]): ReadyCommit {
  const first = parts[0]!.frame;
  const cursor = { epoch: first.epoch, seq: first.seq, tag: first.tag };
  return { cursor, at: first.at, ops: parts.flatMap((part) => part.frame.ops), parts };
}

/** The reorder window. */
export class Buffer {
  #commits = new Map<string, Assembly>();

  /** Takes a frame above the cursor; `next` is the cursor if the commit after it may be shown. */
  take(now: number, next: Cursor | undefined, part: Part): Taken {
    const { frame } = part;
    const isNext = next !== undefined && next.epoch === frame.epoch && next.seq + 1 === frame.seq;
    const key = `${frame.epoch}:${frame.seq}`;
    if (isNext && frame.parts === 1) {
      this.#commits.delete(key);
      return readyCommit([part]);
    }
    let assembly = this.#commits.get(key);
    if (assembly === undefined) {
      if (this.#commits.size >= COMMITS_MAX) return "dropped";
      assembly = { epoch: frame.epoch, seq: frame.seq, firstAt: now, parts: [] };
      this.#commits.set(key, assembly);
    }
    const twin = assembly.parts[0]?.frame;
    if (twin !== undefined && (twin.tag !== frame.tag || twin.parts !== frame.parts)) {
      // Two commits with one number: the server was restored. The later one stays; its tag decides at the next request.
      assembly.parts = [];
    }
    if (assembly.parts.some((held) => held.frame.part === frame.part)) return "dropped";
    assembly.parts.push(part);
    return isNext ? (this.nextReady(next) ?? "kept") : "kept";
  }

  /** The commit after the cursor, if all its parts are there. */
  nextReady(cursor: Cursor | undefined): ReadyCommit | undefined {
    if (cursor === undefined) return undefined;
    const key = `${cursor.epoch}:${cursor.seq + 1}`;
    const parts = this.#commits.get(key)?.parts ?? [];
    const wanted = parts[0]?.frame.parts ?? 0;
    if (wanted === 0 || parts.length < wanted) return undefined;
    this.#commits.delete(key);
    return readyCommit(parts.toSorted((a, b) => a.frame.part - b.frame.part));
  }

  #retain(keep: (assembly: Assembly) => boolean): void {
    for (const [key, assembly] of this.#commits) {
      if (!keep(assembly)) this.#commits.delete(key);
    }
  }

  /** Forgets what is at or below the cursor, and other numberings. */
  dropShown(cursor: Cursor): void {
    this.#retain((held) => held.epoch === cursor.epoch && held.seq > cursor.seq);
  }

  /** A server that ends at `to` had no later commit when it was asked: later frames that were here by then are of a numbering that is gone. */
  dropDisowned(to: Cursor, askedAt: number): void {
    this.#retain((held) => held.epoch !== to.epoch || held.seq <= to.seq || held.firstAt >= askedAt);
  }

  /** The oldest thing that waits: since when, and for which seq. */
  waiting(cursor: Cursor): { since: number; seq: number } | undefined {
    let oldest: { since: number; seq: number } | undefined;
    for (const { epoch, seq, firstAt } of this.#commits.values()) {
      if (epoch !== cursor.epoch) continue;
      if (oldest === undefined || firstAt < oldest.since || (firstAt === oldest.since && seq < oldest.seq)) oldest = { since: firstAt, seq };
    }
    return oldest;
  }

  clear(): void {
    this.#commits.clear();
  }
}
