/** The device's clocks: one for people, one that only goes forward, and what the server's says. */

/** Milliseconds since 1970 by the device's clock. */
export function wall(): number {
  return Date.now();
}

/**
 * A clock that only goes forward. It takes the faster of two clocks at each look: the monotonic one of some platforms stands still while the
 * machine sleeps, and the other one may be set.
 */
export class Moments {
  #now = 0;
  #wall = Date.now();
  #monotonic = performance.now();

  /** Milliseconds since it was made. */
  get now(): number {
    const [wallNow, monotonic] = [Date.now(), performance.now()];
    this.#now += Math.max(wallNow - this.#wall, Math.floor(monotonic - this.#monotonic), 0);
    this.#wall = wallNow;
    this.#monotonic = monotonic;
    return this.#now;
  }
}

/** Server clock against this device's, learnt from frames: the fastest one tells most. */
export class ServerClock {
  /** Server milliseconds when `Moments` showed 0; as late as any message proves. */
  #zero: number | undefined;

  saw(serverMs: number, moment: number): void {
    this.#zero = Math.max(this.#zero ?? Number.NEGATIVE_INFINITY, serverMs - moment);
  }

  /** Server minus device, milliseconds; 0 while nothing is known. */
  offsetMs(moment: number): number {
    return this.#zero === undefined ? 0 : Math.round(this.#zero + moment - wall());
  }
}
