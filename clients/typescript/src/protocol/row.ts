/** A row: one JSON object with an `id`, kept verbatim in canonical form so that clients of any age compute the same digest. */

import { canonicalise } from "./canonical.js";
import { type JsonReason, JsonError } from "./json.js";
import { byteLength, ROW_ID_BYTES_MAX } from "./limits.js";

/** Why a text is not a row. */
export type RowReason = JsonReason | "object" | "id";

/** A text that is not a row. */
export class RowError extends Error {
  constructor(
    readonly reason: RowReason,
    detail: string,
  ) {
    super(detail);
    this.name = "RowError";
  }
}

/** A valid row. */
export interface Row {
  readonly id: string;
  /** Canonical JSON. */
  readonly text: string;
}

/** Whether this can be the id of a row. */
export function isRowId(id: unknown): id is string {
  return typeof id === "string" && id.length > 0 && !id.includes("\0") && byteLength(id) <= ROW_ID_BYTES_MAX;
}

/** Parses any JSON text of the subset. */
export function parseRow(text: string): Row {
  const canonical = canonicalObject(text);
  const id: unknown = (JSON.parse(canonical) as { id?: unknown }).id;
  if (!isRowId(id)) throw new RowError("id", "a row needs an `id`: a string of 1 to 128 bytes without U+0000");
  return { id, text: canonical };
}

/** The canonical text of a JSON object. */
export function canonicalObject(text: string): string {
  try {
    const canonical = canonicalise(text);
    if (!canonical.startsWith("{")) throw new RowError("object", "a row is a JSON object");
    return canonical;
  } catch (error) {
    throw error instanceof JsonError ? new RowError(error.reason, error.message) : error;
  }
}

/** What a patch (canonical JSON of an object) makes of a row: top-level fields replaced, `null` a value. */
export function patchRow(base: Row, patch: string): Row {
  // Canonical texts hold no number that JSON.parse would change, and `Map` keeps names such as `__proto__` harmless.
  const fields = new Map<string, unknown>(Object.entries(JSON.parse(base.text) as object));
  for (const [name, value] of Object.entries(JSON.parse(patch) as object)) fields.set(name, value);
  const keys = [...fields.keys()].sort();
  const row = parseRow(`{${keys.map((key) => `${JSON.stringify(key)}:${JSON.stringify(fields.get(key))}`).join(",")}}`);
  if (row.id !== base.id) throw new RowError("id", "a patch may not change `id`");
  return row;
}
