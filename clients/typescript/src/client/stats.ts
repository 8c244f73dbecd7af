/** What a client counts for its report. */

import type { Counters } from "../engine/state.js";
import type { Latency } from "../protocol/report.js";

/** The same as those of the other clients, so that histograms can be added up. */
const BOUNDS_MS = [1, 2, 3, 4, 5, 8, 12, 20, 35, 60, 100, 250, 500, 1_000, 5_000, 60_000];

/** Counted since the client was opened. */
export class Stats {
  commitsMqtt = 0;
  commitsHttp = 0;
  changesMqtt = 0;
  changesHttp = 0;
  changesFallback = 0;
  operationsAccepted = 0;
  operationsRejected = 0;
  malformed = 0;
  readonly #latency = [...BOUNDS_MS, 0].map(() => 0);

  /** Commit → applied, by the server's clock and this one. */
  record(ms: number): void {
    const place = BOUNDS_MS.findIndex((bound) => ms <= bound);
    this.#latency[place < 0 ? BOUNDS_MS.length : place]! += 1;
  }

  get latency(): Latency {
    return { bounds_ms: BOUNDS_MS, counts: [...this.#latency] };
  }

  /** By the names that reports use. */
  named(engine: Counters): Record<string, number> {
    return {
      commits_mqtt: this.commitsMqtt,
      commits_http: this.commitsHttp,
      changes_mqtt: this.changesMqtt,
      changes_http: this.changesHttp,
      changes_fallback: this.changesFallback,
      frames: engine.frames,
      gaps: engine.gaps,
      catch_ups: engine.catchUps,
      snapshots: engine.snapshots,
      polls: engine.polls,
      not_modified: engine.notModified,
      digest_mismatches: engine.digestMismatches,
      ranges_repaired: engine.rangesRepaired,
      renumberings: engine.renumberings,
      disconnects: engine.disconnects,
      uploads: engine.uploads,
      operations_accepted: this.operationsAccepted,
      operations_rejected: this.operationsRejected,
      malformed: this.malformed,
    };
  }
}
