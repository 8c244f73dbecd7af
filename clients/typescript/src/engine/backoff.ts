/** Waiting longer each time, at random: full jitter, so that a crowd never comes back at once. */

const U64 = (1n << 64n) - 1n;

/** A small seeded generator (SplitMix64, Steele et al. 2014): all the randomness a session has. */
export class Dice {
  #state: bigint;

  constructor(seed: bigint) {
    this.#state = seed & U64;
  }

  #next(): bigint {
    this.#state = (this.#state + 0x9e3779b97f4a7c15n) & U64;
    let z = this.#state;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & U64;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & U64;
    return z ^ (z >> 31n);
  }

  /** A number in `0..=max`. */
  upTo(max: number): number {
    return Number(this.#next() % (BigInt(max) + 1n));
  }
}

/** No answer puts a device to sleep for longer than this, whatever it asks for: that would be a silent staleness. */
const ASKED_MAX_MS = 3_600_000;
/** Even the luckiest throw waits this long, so that a dead peer costs no busy loop. */
const FLOOR_MS = 20;

/** How long to wait when the server asked for patience. */
export function patience(askedMs: number): number {
  return Math.min(askedMs, ASKED_MAX_MS);
}

/** How long to wait after failures in a row. */
export class Backoff {
  #failures = 0;

  constructor(
    private readonly baseMs: number,
    private readonly capMs: number,
  ) {}

  /** After one more failure: a random time up to `base × 2^failures`, at most the cap; at least what the server asked for, within reason. */
  nextMs(dice: Dice, askedMs?: number): number {
    const ceiling = Math.min(this.baseMs * 2 ** Math.min(this.#failures, 20), this.capMs);
    this.#failures += 1;
    const own = FLOOR_MS + dice.upTo(ceiling);
    if (askedMs === undefined) return own;
    const asked = patience(askedMs);
    return Math.max(asked + dice.upTo(Math.floor(asked / 4)), own);
  }

  reset(): void {
    this.#failures = 0;
  }
}
