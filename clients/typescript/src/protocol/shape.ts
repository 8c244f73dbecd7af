/** Small readers that turn a parsed JSON value into a typed one or say which field is wrong. Unknown fields are ignored everywhere. */

import { type Json, JsonNumber, JsonObject, readJson } from "./json.js";

/** A message that is not what the contract says. */
export class ShapeError extends Error {
  constructor(
    readonly field: string,
    wanted: string,
  ) {
    super(field === "" ? wanted : `${field}: ${wanted}`);
    this.name = "ShapeError";
  }
}

/** Turns a value into a `T`, or throws. */
export type Reads<T> = (value: Json | undefined, field: string) => T;

function wrong(field: string, wanted: string): never {
  throw new ShapeError(field, wanted);
}

/** Reads a whole text. */
export function readText<T>(text: string, reads: Reads<T>): T {
  return reads(readJson(text), "");
}

export const text: Reads<string> = (value, field) => (typeof value === "string" ? value : wrong(field, "a string is needed"));

export const flag: Reads<boolean> = (value, field) => (typeof value === "boolean" ? value : wrong(field, "true or false is needed"));

/** An integer that every JSON reader holds exactly. */
export const integer: Reads<number> = (value, field) => {
  const number = value instanceof JsonNumber && /^-?[0-9]+$/.test(value.text) ? Number(value.text) : Number.NaN;
  return Number.isSafeInteger(number) ? number : wrong(field, "an integer within ±(2^53−1) is needed");
};

/** An integer of 0 and more. */
export const natural: Reads<number> = (value, field) => {
  const number = integer(value, field);
  return number >= 0 && !Object.is(number, -0) ? number : wrong(field, "a number of 0 and more is needed");
};

/** A time span: what is beyond this language's integers is for ever. */
export const span: Reads<number> = (value, field) => {
  if (!(value instanceof JsonNumber) || !/^[0-9]+$/.test(value.text)) return wrong(field, "a number of 0 and more is needed");
  return Math.min(Number(value.text), Number.MAX_SAFE_INTEGER);
};

export const object: Reads<JsonObject> = (value, field) => (value instanceof JsonObject ? value : wrong(field, "an object is needed"));

/** The member of an object. */
export function member<T>(from: JsonObject, name: string, reads: Reads<T>): T {
  return reads(from.get(name), name);
}

/** A list. */
export function list<T>(reads: Reads<T>): Reads<T[]> {
  return (value, field) =>
    Array.isArray(value) ? value.map((item, n) => reads(item, `${field}[${n}]`)) : wrong(field, "a list is needed");
}

/** Something that may be left out. */
export function missingOr<T, M>(missing: M, reads: Reads<T>): Reads<T | M> {
  return (value, field) => (value === undefined ? missing : reads(value, field));
}

/** Something that may be left out, or `null`. */
export function maybe<T>(reads: Reads<T>): Reads<T | undefined> {
  return (value, field) => (value === undefined || value === null ? undefined : reads(value, field));
}

/** One of these words. */
export function word<const W extends string>(...words: readonly W[]): Reads<W> {
  return (value, field) => words.find((known) => known === value) ?? wrong(field, `one of ${words.join(", ")} is needed`);
}

/** A string that `parse` makes something of. */
export function parsed<T>(what: string, parse: (raw: string) => T | undefined): Reads<T> {
  return (value, field) => {
    const found = typeof value === "string" ? parse(value) : undefined;
    return found === undefined ? wrong(field, `${what} is needed`) : found;
  };
}

/** An object whose names and values are read, its members by name. */
export function dictionary<T>(name: Reads<string>, reads: Reads<T>): Reads<Map<string, T>> {
  return (value, field) => {
    const entries = [...object(value, field).members].map(([key, item]) => [name(key, field), reads(item, key)] as const);
    return new Map(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
  };
}
