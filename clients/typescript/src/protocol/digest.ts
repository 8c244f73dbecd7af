/** Row hashes and collection digests: sums mod 2^128, so that the order of rows does not matter (§4.4 of the contract). */

import { sha256 } from "@noble/hashes/sha2.js";

/** A collection's digest or a row's hash: 32 lower-case hex digits, most significant first. */
export type Digest = string;

/** The digest of no rows. */
export const EMPTY_DIGEST: Digest = "0".repeat(32);

/** How many ranges a collection is divided into. */
export const SUB_DIGESTS = 256;

const encoder = new TextEncoder();
const MASK = (1n << 128n) - 1n;

/** The hash of a row given its canonical text: the first 16 bytes of SHA-256, read as a little-endian number. */
export function rowHash(collection: string, id: string, canonical: string): Digest {
  const out = sha256(encoder.encode(`${collection}\0${id}\0${canonical}`));
  let hex = "";
  for (let i = 15; i >= 0; i -= 1) hex += out[i]!.toString(16).padStart(2, "0");
  return hex;
}

/** The range of a row id: the first byte of SHA-256(id). */
export function bucketOf(id: string): number {
  return sha256(encoder.encode(id))[0]!;
}

/** Parses 32 lower-case hex digits; undefined if it is something else. */
export function parseDigest(raw: unknown): Digest | undefined {
  return typeof raw === "string" && /^[0-9a-f]{32}$/.test(raw) ? raw : undefined;
}

/** A running sum of row hashes. */
export class DigestSum {
  #sum: bigint;

  constructor(from: Digest = EMPTY_DIGEST) {
    this.#sum = BigInt(`0x${from}`);
  }

  add(hash: Digest): void {
    this.#sum = (this.#sum + BigInt(`0x${hash}`)) & MASK;
  }

  remove(hash: Digest): void {
    this.#sum = (this.#sum - BigInt(`0x${hash}`)) & MASK;
  }

  /** Takes `old` out and puts `now` in, where there are such. */
  replace(old: Digest | undefined, now: Digest | undefined): void {
    if (old !== undefined) this.remove(old);
    if (now !== undefined) this.add(now);
  }

  get value(): Digest {
    return this.#sum.toString(16).padStart(32, "0");
  }
}
