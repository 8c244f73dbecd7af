/** The MQTT connection: make it, lose it, be refused, come back without a crowd. */

import { Backoff } from "./backoff.js";
import { want } from "./pull.js";
import type { State } from "./state.js";

const RETRY_BASE_MS = 200;
const RETRY_CAP_MS = 30_000;
/** A refused login is an authorisation fault: stop, report, try seldom. */
const REFUSED_BASE_MS = 10_000;
const REFUSED_CAP_MS = 300_000;

/** The connection. */
export class Link {
  state: "down" | "connecting" | "up" = "down";
  retryAt: number;
  readonly retry = new Backoff(RETRY_BASE_MS, RETRY_CAP_MS);
  readonly slow = new Backoff(REFUSED_BASE_MS, REFUSED_CAP_MS);
  /** Set while the broker refuses the device. */
  refused: string | undefined;

  constructor(now: number) {
    this.retryAt = now;
  }

  get isUp(): boolean {
    return this.state === "up";
  }

  get deadline(): number | undefined {
    return this.state === "down" ? this.retryAt : undefined;
  }
}

export function runLink(s: State, now: number): void {
  const due = s.link.deadline;
  if (due !== undefined && due <= now) {
    s.link.state = "connecting";
    s.effects.push({ do: "connect", collections: [...s.collections] });
  }
}

/** From here on no frame is missed; what came before must be confirmed by the head, or asked for. */
export function subscribed(s: State, now: number): void {
  s.link.state = "up";
  s.link.retry.reset();
  s.link.slow.reset();
  s.link.refused = undefined;
  let patience = 0;
  if (s.cursor !== undefined) {
    patience = s.config.headPatienceMs + (s.pull.isFirst ? 0 : s.dice.upTo(s.config.returnSpreadMs));
  }
  s.pull.subscribed(now);
  want(s, now + patience, s.cursor === undefined ? "first" : "returned");
}

export function connectionRefused(s: State, now: number, code: string): void {
  s.link.refused = code;
  goDown(s, now, s.link.slow.nextMs(s.dice));
}

export function disconnected(s: State, now: number): void {
  goDown(s, now, s.link.retry.nextMs(s.dice));
}

function goDown(s: State, now: number, wait: number): void {
  if (s.link.isUp) {
    s.counters.disconnects += 1;
    // The server may be another one when it comes back, which numbers other commits alike; what was missed is asked for anyway.
    s.buffer.clear();
  }
  const isFirstFailure = !s.pull.mqttDown;
  s.link.state = "down";
  s.link.retryAt = now + wait;
  if (!isFirstFailure) return;
  s.pull.mqttWentDown();
  const spread = s.cursor === undefined || s.pull.isFirst ? 0 : s.dice.upTo(s.config.returnSpreadMs);
  want(s, now + spread, s.cursor === undefined ? "first" : "returned");
}

export function networkChanged(s: State, now: number, available: boolean): void {
  if (available) hurry(s, now);
  else s.pull.networkLost();
}

/** No reason to wait any longer: the network is back, or somebody asked. */
export function hurry(s: State, now: number): void {
  if (s.link.state === "down") {
    s.link.retryAt = Math.min(now, s.link.retryAt);
    s.link.retry.reset();
  }
  s.pull.hurry(now);
  s.upload.hurry();
}
