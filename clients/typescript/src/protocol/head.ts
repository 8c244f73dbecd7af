/** The head of a branch: its newest commit and the digests of its collections. */

import { type Cursor, hex16 } from "./cursor.js";
import { type Digest, parseDigest } from "./digest.js";
import { version } from "./frame.js";
import { byteLength, FRAME_BYTES_MAX } from "./limits.js";
import { collection } from "./names.js";
import { dictionary, maybe, member, natural, object, parsed, readText, type Reads, ShapeError, span } from "./shape.js";
import { timestamp } from "./timestamp.js";

/** Digests by collection. */
export type Digests = ReadonlyMap<string, Digest>;

/** What a branch is now. */
export interface Head {
  readonly epoch: string;
  readonly seq: number;
  readonly tag: string;
  /** Server time when it was made, milliseconds since 1970. */
  readonly at: number;
  readonly digests: Digests;
  /** The newest commits were sent without frames: pull within this time. */
  readonly pullWithinMs: number | undefined;
  /** Since then the server holds the branch's next commit back. */
  readonly heldSince: number | undefined;
}

export const digest: Reads<Digest> = parsed("32 lower-case hex digits", parseDigest);
export const digests: Reads<Digests> = dictionary(collection, digest);

const head: Reads<Head> = (value, field) => {
  const from = object(value, field);
  version(from);
  return {
    epoch: member(from, "epoch", hex16),
    seq: member(from, "seq", natural),
    tag: member(from, "tag", hex16),
    at: member(from, "at", timestamp),
    digests: member(from, "digests", digests),
    pullWithinMs: member(from, "pull_within_ms", maybe(span)),
    heldSince: member(from, "held_since", maybe(timestamp)),
  };
};

/** Parses and checks a payload. */
export function parseHead(payload: string): Head {
  if (byteLength(payload) > FRAME_BYTES_MAX) throw new ShapeError("", `a head has at most ${FRAME_BYTES_MAX} bytes`);
  return readText(payload, head);
}

/** The cursor of a device that has all of it. */
export function headCursor(of: Head): Cursor {
  return { epoch: of.epoch, seq: of.seq, tag: of.tag };
}
