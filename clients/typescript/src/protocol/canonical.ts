/**
 * RFC 8785 canonical JSON for the subset that rows use: strings, integers within ±(2^53−1), booleans, null, arrays, objects. The result is
 * equal, byte for byte, to what the server hashes.
 */

import { byteLength, ROW_BYTES_MAX, ROW_DEPTH_MAX } from "./limits.js";
import { type Json, JsonError, JsonNumber, JsonObject, readJson } from "./json.js";

/** The canonical form of a JSON text. */
export function canonicalise(text: string): string {
  const bytes = text.length * 3 <= ROW_BYTES_MAX ? 0 : byteLength(text);
  if (bytes > ROW_BYTES_MAX) throw new JsonError("large", `${bytes} bytes; a row has at most ${ROW_BYTES_MAX}`);
  return isCanonical(text) ? text : write(readJson(text), 0);
}

/** The canonical form of a value that was read. */
export function write(value: Json, depth: number): string {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "string") return JSON.stringify(value);
  if (value instanceof JsonNumber) return integer(value.text);
  if (depth + 1 > ROW_DEPTH_MAX) throw new JsonError("deep", `nested deeper than ${ROW_DEPTH_MAX} levels`);
  if (Array.isArray(value)) return `[${value.map((item) => write(item, depth + 1)).join(",")}]`;
  // The order of strings in this language is that of their UTF-16 units, which is what the RFC asks for.
  const keys = [...value.members.keys()].sort();
  return `{${keys.map((key) => `${JSON.stringify(key)}:${write(value.members.get(key) ?? null, depth + 1)}`).join(",")}}`;
}

function integer(text: string): string {
  if (/[.eE]/.test(text) || text === "-0") {
    throw new JsonError("float", `${text} is a float; quantities are decimal strings, money is an integer of minor units`);
  }
  if (!Number.isSafeInteger(Number(text))) throw new JsonError("integer", `${text} is beyond ±(2^53−1); send it as a string`);
  return text;
}

/** The fast path: true only if `text` is its own canonical form; what the server sends is. */
function isCanonical(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    // What JSON.parse loses (a key twice, a spelling, a rounding) does not come back.
    return isPlain(value, 0) && JSON.stringify(value) === text;
  } catch {
    return false;
  }
}

/** Whether a parsed value holds only what a row may hold, its keys in order. */
export function isPlain(value: unknown, depth: number): boolean {
  switch (typeof value) {
    case "string":
      return value.isWellFormed();
    case "number":
      return Number.isSafeInteger(value) && !Object.is(value, -0);
    case "boolean":
      return true;
    case "object": {
      if (value === null) return true;
      if (depth + 1 > ROW_DEPTH_MAX) return false;
      if (Array.isArray(value)) return value.every((item) => isPlain(item, depth + 1));
      let last: string | undefined;
      for (const [key, member] of Object.entries(value)) {
        if (!key.isWellFormed() || (last !== undefined && last >= key) || !isPlain(member, depth + 1)) return false;
        last = key;
      }
      return true;
    }
    default:
      return false;
  }
}

export { JsonObject };
