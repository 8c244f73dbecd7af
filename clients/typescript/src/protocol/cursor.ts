/** The numbering of a branch: epoch, seq, tag, and the cursor that says what a device has. */

import { isRowId } from "./row.js";
import { parseCollection } from "./names.js";
import { parsed, type Reads } from "./shape.js";

/** What a device has. */
export interface Cursor {
  /** 16 hex digits. */
  readonly epoch: string;
  readonly seq: number;
  /** 16 hex digits. */
  readonly tag: string;
}

function parseHex16(raw: string): string | undefined {
  return /^[0-9a-f]{16}$/.test(raw) ? raw : undefined;
}

/** The number of a commit as it stands in a cursor: no leading zeros, no sign, nothing that JSON readers round. */
function parseSeq(raw: string): number | undefined {
  const seq = /^(?:0|[1-9][0-9]*)$/.test(raw) ? Number(raw) : Number.NaN;
  return Number.isSafeInteger(seq) ? seq : undefined;
}

export const hex16: Reads<string> = parsed("16 lower-case hex digits", parseHex16);

/** Parses `{epoch}:{seq}:{tag}`. */
export function parseCursor(raw: string): Cursor | undefined {
  const [epoch = "", digits = "", tag = "", ...more] = raw.split(":");
  const seq = parseSeq(digits);
  const fits = more.length === 0 && seq !== undefined && parseHex16(epoch) !== undefined && parseHex16(tag) !== undefined;
  return fits ? { epoch, seq, tag } : undefined;
}

export const cursor: Reads<Cursor> = parsed("a cursor", parseCursor);

/** As it stands in a request. */
export function cursorText(at: Cursor): string {
  return `${at.epoch}:${at.seq}:${at.tag}`;
}

/** Whether both are the same commit, or both nothing. */
export function sameCursor(a: Cursor | undefined, b: Cursor | undefined): boolean {
  return a?.epoch === b?.epoch && a?.seq === b?.seq && a?.tag === b?.tag;
}

/** Whether this is a place within an answer to go on from. It is opaque to a client; only the golden files ask. */
export function isPosition(raw: string): boolean {
  const [epoch = "", to = "", seq = "", collection = "", ...id] = raw.split(".");
  return (
    parseHex16(epoch) !== undefined &&
    parseSeq(to) !== undefined &&
    parseSeq(seq) !== undefined &&
    parseCollection(collection) !== undefined &&
    isRowId(id.join("."))
  );
}
