/** Times: RFC 3339 in UTC with exactly three fractional digits outside, milliseconds inside. */

import { parsed, type Reads } from "./shape.js";

/** Parses the one accepted spelling into milliseconds since 1970. */
export function parseTimestamp(raw: string): number | undefined {
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(raw)) return undefined;
  const ms = Date.parse(raw);
  // A day that does not exist comes back as another one, or as none.
  return Number.isNaN(ms) || timestampText(ms) !== raw ? undefined : ms;
}

/** As it stands on the wire. */
export function timestampText(ms: number): string {
  return new Date(ms).toISOString();
}

export const timestamp: Reads<number> = parsed("a time such as 2026-11-22T06:41:00.123Z", parseTimestamp);

/** A day that exists, as `YYYY-MM-DD`. */
export function parseDay(raw: string): string | undefined {
  return /^\d{4}-\d\d-\d\d$/.test(raw) && parseTimestamp(`${raw}T00:00:00.000Z`) !== undefined ? raw : undefined;
}
