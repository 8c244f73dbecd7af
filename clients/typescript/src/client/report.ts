/** The device's report to the server: every minute, and soon after its state changed; and what both know of dead letters. */

import type { SessionStatus } from "../engine/session.js";
import { cursorText } from "../protocol/cursor.js";
import { OPERATIONS_PER_UPLOAD_MAX } from "../protocol/limits.js";
import type { DeviceState, Latency } from "../protocol/report.js";
import { timestampText } from "../protocol/timestamp.js";
import { wall } from "./clock.js";
import type { DriverParts } from "./driver.js";

/** States that come and go within this are not worth a report. */
const DEBOUNCE_MS = 1_000;

/** What a report is made of beside the local database. */
interface Figures {
  readonly session: SessionStatus;
  readonly counters: Record<string, number>;
  readonly latency: Latency;
}

/** Reports of one driver. */
export class Reporter {
  #state: string | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isSettling = false;
  #settleAgain = false;
  #isClosed = false;
  /** Counters and latencies count from here. */
  readonly #startedAt = timestampText(wall());

  constructor(
    private readonly parts: DriverParts,
    private readonly figures: () => Figures,
  ) {
    this.#in(DEBOUNCE_MS);
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  #in(ms: number): void {
    clearTimeout(this.#timer);
    if (!this.#isClosed) this.#timer = setTimeout(() => void this.#report(), ms);
  }

  stateIs(state: DeviceState): void {
    const now = JSON.stringify(state);
    if (this.#state !== undefined && this.#state !== now) this.#in(DEBOUNCE_MS);
    this.#state = now;
  }

  async #report(): Promise<void> {
    this.#in(this.parts.reportIntervalMs);
    if (!this.parts.isOnline()) return;
    this.settleSoon();
    try {
      await this.parts.api.report(await this.#body());
    } catch {
      // The next one says the same and more.
    }
  }

  async #body(): Promise<string> {
    const { session, counters, latency } = this.figures();
    const { digests } = await this.parts.store.position();
    const { state } = session;
    return JSON.stringify({
      state: state.name,
      ...(state.name === "blocked" ? { code: state.code } : {}),
      cursor: session.cursor === undefined ? null : cursorText(session.cursor),
      digests: Object.fromEntries(digests),
      queue_depth: session.queueDepth,
      oldest_pending_s: session.oldestPending === undefined ? 0 : Math.max(0, Math.floor((wall() - session.oldestPending) / 1000)),
      dead_letters: (await this.parts.journal.inState("rejected")).length,
      upload_refused: session.uploadRefused,
      counters,
      latency,
      started_at: this.#startedAt,
      device_time: timestampText(wall()),
      client_version: this.parts.clientVersion,
    });
  }

  /** Tells the server what was decided here about rejected operations, and hears what was decided there; one conversation at a time. */
  settleSoon(): void {
    if (!this.parts.isOnline() || this.#isClosed) return;
    this.#settleAgain = this.#isSettling;
    if (this.#isSettling) return;
    this.#isSettling = true;
    void this.#settle().finally(() => {
      this.#isSettling = false;
      if (this.#settleAgain) this.settleSoon();
    });
  }

  async #settle(): Promise<void> {
    const { journal, api, journalId } = this.parts;
    try {
      for (;;) {
        const { decided, open } = await journal.undecided();
        if (decided.length === 0 && open.length === 0) return;
        await journal.decided(decided, await api.deadLetters(journalId, decided, open));
        this.parts.onJournal();
        if (decided.length < OPERATIONS_PER_UPLOAD_MAX) return;
      }
    } catch {
      // The next report tries again.
    }
  }
}
