/** Money: an integer of minor units and a currency of ISO 4217. */

import { type Json, JsonObject } from "./json.js";
import { EXPONENTS } from "./currencies.js";
import { integer, member, object, type Reads, ShapeError } from "./shape.js";

/** An amount in minor units. */
export interface Money {
  readonly amount: number;
  readonly currency: string;
}

/** How many decimals a currency has; undefined if it is none. */
export function exponentOf(currency: string): number | undefined {
  return EXPONENTS.get(currency);
}

/** A currency of ISO 4217. */
export const currency: Reads<string> = (value, field) => {
  if (typeof value === "string" && exponentOf(value) !== undefined) return value;
  throw new ShapeError(field, "is not a currency of ISO 4217");
};

export const money: Reads<Money> = (value: Json | undefined, field) => {
  const from: JsonObject = object(value, field);
  return { amount: member(from, "amount", integer), currency: member(from, "currency", currency) };
};

/** For people who read logs: `IDR 12500.00`. */
export function moneyText(of: Money): string {
  const exponent = exponentOf(of.currency) ?? 2;
  const digits = String(Math.abs(of.amount)).padStart(exponent + 1, "0");
  const cut = digits.length - exponent;
  const places = exponent === 0 ? "" : `.${digits.slice(cut)}`;
  return `${of.currency} ${of.amount < 0 ? "-" : ""}${digits.slice(0, cut)}${places}`;
}

/** Price × quantity in minor units, half a unit rounded up. */
export function times(price: Money, quantityMilli: number): Money {
  const product = BigInt(price.amount) * BigInt(quantityMilli) + 500n;
  const floor = product >= 0n ? product / 1000n : -((-product + 999n) / 1000n);
  return { amount: Number(floor), currency: price.currency };
}
