/** The lines of a `/changes` answer: a first line, a line per row, a last line without which nothing is shown. */

import { canonicalise, isPlain } from "./canonical.js";
import { hex16 } from "./cursor.js";
import { type Digest, rowHash } from "./digest.js";
import { type Digests, digests } from "./head.js";
import { JsonObject } from "./json.js";
import { collection, parseCollection } from "./names.js";
import { operationId } from "./operation.js";
import { isRowId } from "./row.js";
import { flag, list, member, missingOr, natural, object, readText, type Reads, ShapeError, text, word } from "./shape.js";

/** The first line. */
export interface ChangesFirst {
  readonly epoch: string;
  readonly from: number;
  readonly to: number;
  readonly rows: number;
  /** The caller's own operations contained up to `to`. */
  readonly ops: readonly string[];
}

/** A row line; no row: it is gone. */
export interface ChangeLine {
  readonly collection: string;
  readonly id: string;
  readonly seq: number;
  /** Where to resume after this line. */
  readonly position: string;
  readonly row: { readonly text: string; readonly hash: Digest } | undefined;
}

/** The last line. */
export interface ChangesEnd {
  readonly seq: number;
  readonly tag: string;
  readonly digests: Digests;
}

const first: Reads<ChangesFirst> = (value, field) => {
  const from = object(value, field);
  return {
    epoch: member(from, "epoch", hex16),
    from: member(from, "from", natural),
    to: member(from, "to", natural),
    rows: member(from, "rows", natural),
    ops: member(from, "ops", missingOr([], list(operationId))),
  };
};

const end: Reads<ChangesEnd> = (value, field) => {
  const from = object(value, field);
  if (!member(from, "end", flag)) throw new ShapeError("end", "a last line says true");
  return { seq: member(from, "seq", natural), tag: member(from, "tag", hex16), digests: member(from, "digests", digests) };
};

export function parseFirst(line: string): ChangesFirst {
  return readText(line, first);
}

export function parseEnd(line: string): ChangesEnd {
  return readText(line, end);
}

/** Parses a row line. */
export function parseLine(line: string): ChangeLine {
  return quickly(line) ?? readText(line, slowly);
}

/** What the server sends is canonical within; then the language's own parser loses nothing of it. */
function quickly(line: string): ChangeLine | undefined {
  let value: { c?: unknown; op?: unknown; id?: unknown; seq?: unknown; p?: unknown; row?: unknown };
  try {
    value = JSON.parse(line) as typeof value;
  } catch {
    return undefined;
  }
  const { c, op, id, seq, p, row } = value;
  const fits = typeof c === "string" && parseCollection(c) !== undefined && isRowId(id) && typeof p === "string";
  if (!fits || !Number.isSafeInteger(seq) || (seq as number) < 0 || op !== "put" || typeof row !== "object" || row === null) return undefined;
  if (Array.isArray(row) || !isPlain(row, 0) || JSON.stringify(value) !== line) return undefined;
  const canonical = JSON.stringify(row);
  // Its length, too, is checked where canonical texts are.
  return { collection: c, id, seq: seq as number, position: p, row: { text: canonicalise(canonical), hash: rowHash(c, id, canonical) } };
}

const slowly: Reads<ChangeLine> = (value, field) => {
  const from = object(value, field);
  const of = member(from, "c", collection);
  const op = member(from, "op", word("put", "delete"));
  const id = member(from, "id", text);
  if (!isRowId(id)) throw new ShapeError("id", "1 to 128 bytes without U+0000 are needed");
  const [seq, position, raw] = [member(from, "seq", natural), member(from, "p", text), from.get("row")];
  if (op === "delete") {
    if (raw !== undefined) throw new ShapeError("row", "a delete has none");
    return { collection: of, id, seq, position, row: undefined };
  }
  if (!(raw instanceof JsonObject)) throw new ShapeError("row", "a put needs an object");
  const canonical = canonicalise(raw.text);
  return { collection: of, id, seq, position, row: { text: canonical, hash: rowHash(of, id, canonical) } };
};
