/** The scope of all data and the names that share its alphabet; topics are made of them and of nothing else. */

import { byteLength, SEGMENT_BYTES_MAX } from "./limits.js";
import { parsed, type Reads } from "./shape.js";

const RESERVED = ["admin", "devices"];

function isSegment(raw: string): boolean {
  return /^[A-Za-z0-9_-]+$/.test(raw) && byteLength(raw) <= SEGMENT_BYTES_MAX;
}

/** An env or device id. */
export function parseName(raw: string): string | undefined {
  return isSegment(raw) ? raw : undefined;
}

/** A merchant or branch: words that paths use themselves are refused. */
export function parseScopeName(raw: string): string | undefined {
  return isSegment(raw) && !RESERVED.includes(raw) ? raw : undefined;
}

/** A collection. */
export function parseCollection(raw: string): string | undefined {
  return isSegment(raw) && raw !== "sync" ? raw : undefined;
}

export const name: Reads<string> = parsed("a name of A-Z a-z 0-9 _ -", parseName);
export const scopeName: Reads<string> = parsed("a name of A-Z a-z 0-9 _ - that is not reserved", parseScopeName);
export const collection: Reads<string> = parsed("a collection", parseCollection);

/** Whose data it is. */
export interface Scope {
  readonly env: string;
  readonly merchant: string;
  readonly branch: string;
}

/** What a topic carries; no collection: the head. */
export interface Topic {
  readonly scope: Scope;
  readonly collection: string | undefined;
}

/** Where the updates of a collection are published. */
export function updatesTopic(scope: Scope, of: string): string {
  return `${scope.env}/${scope.merchant}/${scope.branch}/${of}/updates`;
}

/** Where the head of a branch is published. */
export function headTopic(scope: Scope): string {
  return `${scope.env}/${scope.merchant}/${scope.branch}/sync/head`;
}

/** Parses one of the two topics. */
export function parseTopic(raw: string): Topic | undefined {
  const [env = "", merchant = "", branch = "", fourth = "", last, ...more] = raw.split("/");
  const scope = { env, merchant, branch };
  const isScope = parseName(env) !== undefined && parseScopeName(merchant) !== undefined && parseScopeName(branch) !== undefined;
  if (!isScope || more.length > 0) return undefined;
  if (last === "head" && fourth === "sync") return { scope, collection: undefined };
  return last === "updates" && parseCollection(fourth) !== undefined ? { scope, collection: fourth } : undefined;
}
