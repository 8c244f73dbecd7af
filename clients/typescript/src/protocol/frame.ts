/** A frame: one MQTT message holding the changes of one commit in one collection (§4.2 of the contract). */

import { hex16 } from "./cursor.js";
import { type Json, JsonObject } from "./json.js";
import { byteLength, FRAME_BYTES_MAX } from "./limits.js";
import { operationId } from "./operation.js";
import { canonicalObject, isRowId, parseRow } from "./row.js";
import { list, member, missingOr, natural, object, readText, type Reads, ShapeError, text, word } from "./shape.js";
import { timestamp } from "./timestamp.js";

/** The version that frames and heads carry. */
export const PROTOCOL_VERSION = 1;

/** One row's change. `row` is canonical JSON: the row (put) or the fields to replace (patch). */
export type Change =
  | { readonly op: "put" | "patch"; readonly id: string; readonly row: string }
  | { readonly op: "delete"; readonly id: string; readonly row?: undefined };

/** The changes of one commit in one collection. */
export interface Frame {
  /** A hint for people. */
  readonly type: string;
  readonly epoch: string;
  readonly seq: number;
  readonly tag: string;
  /** The previous commit that changed this collection. */
  readonly prev: number;
  readonly part: number;
  readonly parts: number;
  /** Server time of the commit, milliseconds since 1970. */
  readonly at: number;
  /** The device operations whose effect this commit contains. */
  readonly ops: readonly string[];
  readonly changes: readonly Change[];
}

const change: Reads<Change> = (value, field) => {
  const from = object(value, field);
  const op = member(from, "op", word("put", "patch", "delete"));
  const id = member(from, "id", text);
  if (!isRowId(id)) throw new ShapeError("id", "1 to 128 bytes without U+0000 are needed");
  const raw = from.get("row");
  if (op === "delete") {
    if (raw !== undefined && raw !== null) throw new ShapeError("row", "a delete has none");
    return { op, id };
  }
  const row = rowText(raw);
  if (op === "put" && parseRow(row).id !== id) throw new ShapeError("row", "its id differs from the change's");
  return { op, id, row };
};

function rowText(raw: Json | undefined): string {
  if (raw instanceof JsonObject) return canonicalObject(raw.text);
  throw new ShapeError("row", "a put or patch needs an object");
}

const frame: Reads<Frame> = (value, field) => {
  const from = object(value, field);
  version(from);
  return {
    type: member(from, "type", text),
    epoch: member(from, "epoch", hex16),
    seq: member(from, "seq", natural),
    tag: member(from, "tag", hex16),
    prev: member(from, "prev", natural),
    part: member(from, "part", natural),
    parts: member(from, "parts", natural),
    at: member(from, "at", timestamp),
    ops: member(from, "ops", missingOr([], list(operationId))),
    changes: member(from, "changes", list(change)),
  };
};

/** Refuses every other version. */
export function version(from: JsonObject): void {
  const found = member(from, "v", natural);
  if (found !== PROTOCOL_VERSION) throw new ShapeError("v", `version ${found}; this client understands ${PROTOCOL_VERSION}`);
}

/** Parses and checks a payload. */
export function parseFrame(payload: string): Frame {
  if (byteLength(payload) > FRAME_BYTES_MAX) throw new ShapeError("", `a frame has at most ${FRAME_BYTES_MAX} bytes`);
  const found = readText(payload, frame);
  if (found.part < 1 || found.part > found.parts) throw new ShapeError("part", `${found.part} of ${found.parts}`);
  if (found.seq < 1 || found.prev >= found.seq || found.changes.length === 0) {
    throw new ShapeError("seq", `${found.seq} after ${found.prev} with ${found.changes.length} changes`);
  }
  return found;
}
