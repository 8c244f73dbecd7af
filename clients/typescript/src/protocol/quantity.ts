/** Quantities: decimal strings with up to three places outside, thousandths as an integer inside; never a float. */

import { QUANTITY_MILLI_MAX } from "./limits.js";

/** Parses the one accepted spelling into thousandths. */
export function parseQuantity(raw: unknown): number | undefined {
  if (typeof raw !== "string" || !/^-?(?:0|[1-9][0-9]*)(?:\.[0-9]{0,2}[1-9])?$/.test(raw) || raw === "-0") return undefined;
  const [whole = "", places = ""] = raw.replace("-", "").split(".");
  if (whole.length > 10) return undefined;
  const milli = Number(whole) * 1000 + Number(places.padEnd(3, "0"));
  if (milli > QUANTITY_MILLI_MAX) return undefined;
  return raw.startsWith("-") ? -milli : milli;
}

/** As it stands on the wire. */
export function quantityText(milli: number): string {
  const sign = milli < 0 ? "-" : "";
  const [units, rest] = [Math.floor(Math.abs(milli) / 1000), Math.abs(milli) % 1000];
  const places = String(rest).padStart(3, "0").replace(/0+$/, "");
  return places === "" ? `${sign}${units}` : `${sign}${units}.${places}`;
}

/** What `sold` units take of an item of which one unit takes `perUnit`: half a thousandth away from zero, as the server rounds. */
export function consumption(soldMilli: number, perUnitMilli: number): number {
  const millionths = BigInt(soldMilli) * BigInt(perUnitMilli);
  const size = millionths < 0n ? -millionths : millionths;
  const rounded = (size + 500n) / 1000n;
  return Number(millionths < 0n ? -rounded : rounded);
}
