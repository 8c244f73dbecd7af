/**
 * A device's session: what to do next, given what happened and when. It does no IO, reads no clock, and does not know that MQTT or HTTP
 * exist; a frame is a frame. It hands out commits in order, each once, each whole. `golden/session/` holds it to the engine in Rust.
 */

import type { Cursor } from "../protocol/cursor.js";
import { HEAD_FRESH_S, POLL_INTERVAL_S } from "../protocol/limits.js";
import type { DeviceState } from "../protocol/report.js";
import type { Effect } from "./effect.js";
import type { Input, Known } from "./input.js";
import { applied, applyFailed, frameArrived, headArrived } from "./frames.js";
import { connectionRefused, disconnected, networkChanged, runLink, subscribed } from "./link.js";
import { caughtUp, resyncRequested, runPull, syncRequested } from "./pull.js";
import { headFetched, renumberingCompared, renumberingFetched } from "./renumber.js";
import { compared, recounted, rowsFetched, runRepair } from "./repair.js";
import { type Counters, State } from "./state.js";

/** How a session behaves; every time in milliseconds. */
export interface SessionConfig {
  /** The collections to subscribe to; those that a head names join them. */
  readonly collections: readonly string[];
  /** Where all randomness (jitter) comes from: devices must differ. */
  readonly seed: bigint;
  /** Time between two polls: the bound of staleness when MQTT is down. */
  readonly pollIntervalMs: number;
  /** A head younger than this that equals the cursor makes a poll needless. */
  readonly headFreshMs: number;
  /** How long to wait for frames out of order before asking. */
  readonly reorderWindowMs: number;
  /** How long after subscribing to wait for the retained head before asking. */
  readonly headPatienceMs: number;
  /** Over how much time the devices spread their requests after MQTT came back. */
  readonly returnSpreadMs: number;
}

/** What is right for a till. */
export const DEFAULT_CONFIG: SessionConfig = {
  collections: ["inventory", "product", "transaction"],
  seed: 0n,
  pollIntervalMs: POLL_INTERVAL_S * 1000,
  headFreshMs: HEAD_FRESH_S * 1000,
  reorderWindowMs: 100,
  headPatienceMs: 1_000,
  returnSpreadMs: 500,
};

/** The session at one moment. */
export interface SessionStatus {
  /** What the cashier is shown. */
  readonly state: DeviceState;
  /** The last commit shown. */
  readonly cursor: Cursor | undefined;
  /** When the device last knew that it was at the head, on the clock of `handle`. */
  readonly confirmedAt: number | undefined;
  /** Operations without a verdict. */
  readonly queueDepth: number;
  /** When the oldest of them was made, by the device's clock. */
  readonly oldestPending: number | undefined;
  /** The server or something before it refuses every upload; the operations are kept. */
  readonly uploadRefused: boolean;
}

/** The state of one device's sync. */
export class Session {
  readonly #state: State;

  /** A session of a device that knows this much; its first effects come with the first input. */
  constructor(now: number, config: SessionConfig, known: Known) {
    this.#state = new State(now, config, known);
  }

  /** Takes what happened at `now` and gives what to do, to be carried out in this order before the next input. */
  handle(now: number, input: Input): Effect[] {
    const s = this.#state;
    if (now < s.lastNow) throw new Error(`time went backwards from ${s.lastNow} to ${now}`);
    s.lastNow = now;
    this.#take(now, input);
    runLink(s, now);
    runPull(s, now);
    runRepair(s, now);
    const upload = s.upload.start(now);
    if (upload !== undefined) {
      s.counters.uploads += 1;
      s.effects.push(upload);
    }
    return s.effects.splice(0);
  }

  #take(now: number, input: Input): void {
    const s = this.#state;
    switch (input.is) {
      case "woken":
        return;
      case "subscribed":
        return subscribed(s, now);
      case "connection_refused":
        return connectionRefused(s, now, input.code);
      case "disconnected":
        return disconnected(s, now);
      case "network_changed":
        return networkChanged(s, now, input.available);
      case "frame_arrived":
        return frameArrived(s, now, input);
      case "head_arrived":
        return headArrived(s, now, input.head);
      case "caught_up":
        return caughtUp(s, now, input.outcome);
      case "head_fetched":
        return headFetched(s, now, input.result);
      case "applied":
        return applied(s, now, input.cursor, input.digests);
      case "apply_failed":
        return applyFailed(s, now, input.cursor, input.fault);
      case "compared":
        return (s.renumbering.run === undefined ? compared : renumberingCompared)(s, now, input.result);
      case "rows_fetched":
        return (s.renumbering.run === undefined ? rowsFetched : renumberingFetched)(s, now, input.result);
      case "recounted":
        return recounted(s, now, input.counted);
      case "operation_committed":
        return s.upload.add([input.operation]);
      case "requeued":
        return s.upload.add(input.operations);
      case "uploaded": {
        const effect = s.upload.ended(now, s.dice, input.outcome);
        if (effect !== undefined) s.effects.push(effect);
        return;
      }
      case "sync_requested":
        return syncRequested(s, now);
      case "resync_requested":
        return resyncRequested(s, now);
    }
  }

  /** When to call `handle` with `woken` if nothing else happens before. */
  get nextDeadline(): number | undefined {
    const s = this.#state;
    const timers = [s.link.deadline, s.pull.deadline, s.repair.deadline, s.upload.deadline];
    return timers.reduce((soonest, due) => (soonest === undefined || (due !== undefined && due < soonest) ? due : soonest), undefined);
  }

  /** What the app is told. */
  get status(): SessionStatus {
    const s = this.#state;
    return {
      state: this.#deviceState(),
      cursor: s.shown?.cursor,
      confirmedAt: s.confirmedAt,
      queueDepth: s.upload.depth,
      oldestPending: s.upload.oldest,
      uploadRefused: s.upload.pathRefuses,
    };
  }

  /** Things counted since the session began. */
  get counters(): Counters {
    return { ...this.#state.counters };
  }

  #deviceState(): DeviceState {
    const s = this.#state;
    const code = s.pull.blocked ?? s.link.refused ?? s.upload.blocked;
    if (code !== undefined) return { name: "blocked", code };
    if (s.pull.needsSnapshot) return { name: "needs_snapshot" };
    const isConnected = s.link.isUp;
    if (!isConnected && s.pull.unreachable) return { name: "offline" };
    if (s.cursor === undefined || s.shown === undefined) {
      return { name: isConnected || s.pull.running !== undefined ? "catching_up" : "starting" };
    }
    if (isConnected && !s.pull.isConfirmed) return { name: "catching_up" };
    if (!isConnected && s.confirmedAt === undefined) return { name: "starting" };
    if (!isConnected && s.pull.isBehind) return { name: "catching_up" };
    if (s.isHeld) return { name: "blocked", code: "branch_held" };
    return { name: isConnected ? "live" : "polling" };
  }
}
