/** Carries out what the engine decides: MQTT, HTTP and the local database on one side, the session on the other. */

import type { ReadyCommit } from "../engine/buffer.js";
import type { Ask, Effect } from "../engine/effect.js";
import { type Input, NO_NETWORK } from "../engine/input.js";
import { DEFAULT_CONFIG, Session, type SessionConfig } from "../engine/session.js";
import type { Cursor } from "../protocol/cursor.js";
import type { Enrolment } from "../protocol/enrolment.js";
import { uploadText, type Verdict } from "../protocol/upload.js";
import type { Journal } from "../store/journal.js";
import { Staged } from "../store/staged.js";
import { type Applied, BaseMissing, type FetchedRange, type Store } from "../store/store.js";
import { type Api, faultOf } from "./http.js";
import { Moments, ServerClock, wall } from "./clock.js";
import { Link, type LinkEvent } from "./link.js";
import { Reporter } from "./report.js";
import { Stats } from "./stats.js";
import type { Status } from "./status.js";

/** Commits shown in one local transaction at most, so that a sale never waits long. */
const BATCH_COMMITS_MAX = 64;
/** A disk that took no verdicts is tried again after this. */
const SETTLE_RETRY_MS = 2_000;
/** The longest that a browser's timer can be set for, and longer than anything here waits. */
const TIMER_MAX_MS = 2_000_000_000;

/** What a driver works with. */
export interface DriverParts {
  readonly store: Store;
  readonly journal: Journal;
  readonly api: Api;
  readonly enrolment: Enrolment;
  readonly journalId: string;
  readonly seed: bigint;
  readonly pollIntervalMs: number;
  readonly reportIntervalMs: number;
  readonly clientVersion: string;
  readonly isOnline: () => boolean;
  /** Something became visible. */
  readonly onApplied: (applied: Applied) => void;
  /** The journal changed: verdicts came, or decisions. */
  readonly onJournal: () => void;
  readonly onStatus: (status: Status) => void;
}

/** One page at a time drives the sync of a device. */
export class Driver {
  readonly stats = new Stats();
  readonly #moments = new Moments();
  readonly #clock = new ServerClock();
  readonly #reporter: Reporter;
  readonly #inputs: Input[] = [{ is: "woken" }];
  #session: Session;
  #cursor: Cursor | undefined;
  #link: Link | undefined;
  #ready: ReadyCommit[] = [];
  #staged: Staged | undefined;
  #stagedIsSnapshot: boolean;
  #fetched: FetchedRange[] = [];
  #unsettled: Verdict[] = [];
  #asOf: number | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #pumping: Promise<void> | undefined;
  #isClosed = false;

  static async start(parts: DriverParts): Promise<Driver> {
    const queue = await parts.journal.begin(wall());
    const known = await parts.store.known(queue);
    const config: SessionConfig = { ...DEFAULT_CONFIG, collections: parts.enrolment.collections, seed: parts.seed, pollIntervalMs: parts.pollIntervalMs };
    const staged = known.resume === undefined ? undefined : Staged.onDisk(known.ops);
    const driver = new Driver(parts, new Session(0, config, known), known.cursor, staged, known.resume?.snapshot ?? false);
    driver.#pump();
    return driver;
  }

  private constructor(
    private readonly parts: DriverParts,
    session: Session,
    cursor: Cursor | undefined,
    staged: Staged | undefined,
    stagedIsSnapshot: boolean,
  ) {
    this.#session = session;
    this.#cursor = cursor;
    this.#staged = staged;
    this.#stagedIsSnapshot = stagedIsSnapshot;
    this.#reporter = new Reporter(parts, () => ({ session: this.#session.status, counters: this.stats.named(this.#session.counters), latency: this.stats.latency }));
  }

  /** Tells the session something; what comes of it is carried out in its turn. */
  tell(input: Input): void {
    if (this.#isClosed) return;
    this.#inputs.push(input);
    this.#pump();
  }

  /** The switch of this client's network. */
  switched(online: boolean): void {
    if (!online) this.parts.api.cut();
    this.tell({ is: "network_changed", available: online });
    if (!online && this.#closeLink()) this.tell({ is: "disconnected" });
  }

  /** Somebody decided about a dead letter: the server is told. */
  settleDeadLetters(): void {
    this.#reporter.settleSoon();
    this.#publish();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#reporter.close();
    this.#closeLink();
    this.parts.api.cut();
    await this.#pumping;
  }

  #closeLink(): boolean {
    const link = this.#link;
    this.#link = undefined;
    link?.close();
    return link !== undefined;
  }

  /** One pump at a time: an input is handled after everything that the one before asked of the local database is done. */
  #pump(): void {
    this.#pumping ??= this.#run().finally(() => {
      this.#pumping = undefined;
      if (this.#inputs.length > 0 && !this.#isClosed) this.#pump();
    });
  }

  async #run(): Promise<void> {
    clearTimeout(this.#timer);
    while (!this.#isClosed && (this.#inputs.length > 0 || this.#ready.length > 0)) {
      const input = this.#inputs.shift();
      if (input === undefined || this.#ready.length >= BATCH_COMMITS_MAX) await this.#flush();
      if (input === undefined) continue;
      for (const effect of this.#session.handle(this.#moments.now, input)) await this.#perform(effect);
    }
    this.#publish();
    this.#sleep();
  }

  #sleep(): void {
    if (this.#isClosed) return;
    const due = this.#session.nextDeadline;
    if (due === undefined) return;
    const wait = Math.min(Math.max(due - this.#moments.now, 0), TIMER_MAX_MS);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.tell({ is: "woken" }), wait);
  }

  #publish(): void {
    const { state, confirmedAt, ...status } = this.#session.status;
    const isLive = state.name === "live";
    if (isLive) this.#asOf = wall();
    else if (confirmedAt !== undefined) this.#asOf = wall() - (this.#moments.now - confirmedAt);
    const { digestMismatches } = this.#session.counters;
    this.#reporter.stateIs(state);
    this.parts.onStatus({ state, asOf: this.#asOf, digestMismatches, isOnline: this.parts.isOnline(), ...status });
  }

  async #perform(effect: Effect): Promise<void> {
    if (effect.do === "apply") {
      this.#ready.push(effect.commit);
      return;
    }
    // What was handed out before must be on disk before anything builds on it.
    const isShown = await this.#flush();
    switch (effect.do) {
      case "connect":
        return this.#connect(effect.collections);
      case "subscribe":
        return this.#link?.subscribe(effect.collection);
      case "catch_up":
        return this.#catchUp(effect.ask);
      case "fetch_head":
        return this.#later(this.parts.api.head(), (ok) => ({ is: "head_fetched", result: { ok } }), (fault) => ({ is: "head_fetched", result: { fault } }));
      case "drop_staged":
        return this.#dropStaged();
      case "fetch_sub_digests":
        return this.#compare(effect.collection);
      case "fetch_rows":
        return this.#fetchRows(effect.collection, effect.ranges);
      case "recount":
        return this.#later(this.parts.store.recount(), (counted) => ({ is: "recounted", counted }), () => ({ is: "recounted", counted: undefined }));
      case "upload":
        return this.#upload(effect.ids);
      case "settle":
        this.#unsettled.push(...effect.verdicts);
        return this.#writeVerdicts();
      case "requeue":
        return this.#requeue(() => this.parts.journal.requeue(wall()));
      case "show":
      case "adopt":
      case "renumber":
      case "replace_ranges":
        // Otherwise it was decided on a state that did not come about; the session hears of it next and asks again.
        return isShown ? this.#show(effect) : undefined;
    }
  }

  /** Shows the commits that are ready, in one local transaction; false if that failed. */
  async #flush(): Promise<boolean> {
    if (this.#ready.length === 0) return true;
    const commits = this.#ready;
    this.#ready = [];
    try {
      const applied = await this.parts.store.apply(commits);
      for (const commit of commits) this.stats.record(Math.max(0, wall() + this.#clock.offsetMs(this.#moments.now) - commit.at));
      this.stats.commitsMqtt += commits.length;
      this.stats.changesMqtt += applied.changes;
      await this.#applied(applied);
      return true;
    } catch (error) {
      this.#inputs.unshift({ is: "apply_failed", cursor: this.#cursor, fault: error instanceof BaseMissing ? "base_missing" : "storage" });
      return false;
    }
  }

  async #applied(applied: Applied): Promise<void> {
    this.#cursor = applied.cursor;
    this.parts.onApplied(applied);
    this.#inputs.push({ is: "applied", cursor: applied.cursor, digests: applied.digests });
    // Accepted operations were not in their commit: hand them in again.
    if (applied.requeued) await this.#requeue(() => this.parts.journal.queue());
  }

  async #show(effect: Extract<Effect, { do: "show" | "adopt" | "renumber" | "replace_ranges" }>): Promise<void> {
    try {
      const applied = await this.#write(effect);
      if (applied === undefined) return;
      if (effect.do !== "replace_ranges") {
        this.stats.commitsHttp += 1;
        this.stats.changesHttp += applied.changes;
        if (effect.do === "show" && effect.isFallback) this.stats.changesFallback += applied.changes;
      }
      await this.#applied(applied);
    } catch {
      this.#inputs.push({ is: "apply_failed", cursor: this.#cursor, fault: "storage" });
    }
  }

  async #write(effect: Extract<Effect, { do: "show" | "adopt" | "renumber" | "replace_ranges" }>): Promise<Applied | undefined> {
    const { store } = this.parts;
    if (effect.do === "adopt") return store.adopt(effect.to);
    if (effect.do === "replace_ranges") {
      const { collection, ranges } = effect;
      const place = this.#fetched.findIndex((held) => held.collection === collection && String(held.ranges) === String(ranges));
      // Nothing differs but a stored sum or hash: only they are written anew.
      if (place < 0) return ranges.length === 0 ? store.replaceRanges({ collection, ranges, rows: [] }) : undefined;
      return store.replaceRanges(this.#fetched.splice(place, 1)[0]!);
    }
    const staged = this.#staged ?? new Staged();
    this.#staged = undefined;
    if (effect.do === "show") return store.show(staged, effect.to, effect.snapshot);
    return store.renumber(staged, this.#fetched.splice(0), effect.to);
  }

  /** A call that goes on while other things happen; its end is an input. */
  #later<T>(call: Promise<T>, ok: (value: T) => Input, failed: (fault: ReturnType<typeof faultOf>) => Input): void {
    call.then(
      (value) => this.tell(ok(value)),
      (error: unknown) => this.tell(failed(faultOf(error))),
    );
  }

  #connect(collections: readonly string[]): void {
    if (!this.parts.isOnline() || this.parts.enrolment.wsUrl === "") {
      this.#inputs.push({ is: "disconnected" });
      return;
    }
    const link: Link = new Link(this.parts.enrolment, collections, (event) => {
      // What an earlier connection still has to say counts no more.
      if (this.#link === link) this.#heard(event);
    });
    this.#link = link;
  }

  #heard(event: LinkEvent): void {
    switch (event.is) {
      case "subscribed":
        return this.tell({ is: "subscribed" });
      case "frame":
        this.#clock.saw(event.frame.at, this.#moments.now);
        return this.tell({ is: "frame_arrived", collection: event.collection, frame: event.frame });
      case "head":
        return this.tell({ is: "head_arrived", head: event.head });
      case "malformed":
        this.stats.malformed += 1;
        return;
      case "refused":
        this.#link = undefined;
        return this.tell({ is: "connection_refused", code: event.code });
      case "closed":
        this.#link = undefined;
        return this.tell({ is: "disconnected" });
    }
  }

  #catchUp(ask: Ask): void {
    const staged = (ask.keepStaged ? this.#staged : undefined) ?? new Staged();
    if (ask.keepStaged) staged.goOn();
    else this.#stagedIsSnapshot = ask.after === undefined;
    this.#staged = staged;
    const call = async (): Promise<Input> => {
      const outcome = await this.parts.api.changes(ask, staged);
      // What came of a broken answer outlives this page, unless it belongs to ranges that do not.
      if (outcome.is === "broken" && !ask.overRanges) await this.parts.store.spill(staged, this.#stagedIsSnapshot).catch(() => undefined);
      return { is: "caught_up", outcome };
    };
    this.#later(call(), (input) => input, (fault) => ({ is: "caught_up", outcome: { is: "failed", fault } }));
  }

  async #dropStaged(): Promise<void> {
    this.#fetched = [];
    const isOnDisk = this.#staged?.spilled ?? true;
    this.#staged = undefined;
    // The next answer drops them, if this does not.
    if (isOnDisk) await this.parts.store.dropStaged().catch(() => undefined);
  }

  #compare(collection: string): void {
    const call = async (): Promise<Input> => {
      const { at, digests } = await this.parts.api.subDigests(collection);
      return { is: "compared", result: { ok: await this.parts.store.compare(collection, at, digests) } };
    };
    this.#later(call(), (input) => input, (fault) => ({ is: "compared", result: { fault } }));
  }

  #fetchRows(collection: string, ranges: readonly number[]): void {
    const call = async (): Promise<Input> => {
      const { at, rows } = await this.parts.api.rows(collection, ranges);
      this.#fetched = [...this.#fetched.filter((held) => held.collection !== collection), { collection, ranges, rows }];
      return { is: "rows_fetched", result: { ok: at } };
    };
    this.#later(call(), (input) => input, (fault) => ({ is: "rows_fetched", result: { fault } }));
  }

  async #upload(ids: readonly string[]): Promise<void> {
    let bodies: string[];
    try {
      bodies = await this.parts.journal.bodies(ids);
    } catch {
      this.#inputs.push({ is: "uploaded", outcome: { is: "failed", fault: NO_NETWORK } });
      return;
    }
    const body = uploadText(this.parts.journalId, this.#clock.offsetMs(this.#moments.now), bodies);
    const failed = (fault: ReturnType<typeof faultOf>): Input => ({ is: "uploaded", outcome: { is: "failed", fault } });
    this.#later(this.parts.api.upload(body), (outcome) => ({ is: "uploaded", outcome }), failed);
  }

  /** Writes down the verdicts that are not on disk yet; what the disk does not take now it is given again a little later. */
  async #writeVerdicts(): Promise<void> {
    const verdicts = this.#unsettled.splice(0);
    if (verdicts.length === 0 || this.#isClosed) return;
    try {
      const requeued = await this.parts.journal.settle(verdicts, this.#cursor);
      const rejected = verdicts.filter(({ status }) => status === "rejected").length;
      this.stats.operationsRejected += rejected;
      this.stats.operationsAccepted += verdicts.length - rejected;
      this.parts.onJournal();
      // Somebody may have decided about them before: at the server, or here before it was restored.
      if (rejected > 0) this.#reporter.settleSoon();
      if (requeued) await this.#requeue(() => this.parts.journal.queue());
    } catch {
      this.#unsettled.unshift(...verdicts);
      setTimeout(() => void this.#writeVerdicts(), SETTLE_RETRY_MS);
    }
  }

  async #requeue(read: () => Promise<Extract<Input, { is: "requeued" }>["operations"]>): Promise<void> {
    // A disk that cannot be read now is read when the client is opened again; nothing is lost meanwhile.
    const operations = await read().catch(() => []);
    this.#inputs.push({ is: "requeued", operations });
  }
}
