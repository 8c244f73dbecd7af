/** The public face of a device's sync in a browser. */

import { deleteDB } from "idb";

import { parseClaimLink } from "../protocol/claim_link.js";
import type { Enrolment } from "../protocol/enrolment.js";
import { operationIdOf, type Operation, type OperationKind, parseOperation } from "../protocol/operation.js";
import { POLL_INTERVAL_S } from "../protocol/limits.js";
import type { Money } from "../protocol/money.js";
import { Journal } from "../store/journal.js";
import type { HeldOperation } from "../store/schema.js";
import { Store } from "../store/store.js";
import { Catalogue, type InventoryItem, type Product } from "./catalogue.js";
import { wall } from "./clock.js";
import { Driver } from "./driver.js";
import { Api, enrol as redeem } from "./http.js";
import { complete, type NewReceipt } from "./sale.js";
import { STARTING, type Status } from "./status.js";
import { type TabMessage, Tabs, type Wish } from "./tabs.js";

/** How often a waiting client looks whether the server has judged everything. */
const DRAIN_LOOK_MS = 100;

/** Settings of a client; the defaults are right for a till. */
export interface Options {
  /** Time between two polls while MQTT is down: the bound of staleness, milliseconds. */
  readonly pollIntervalMs?: number;
  /** Time between two reports to the server, milliseconds. */
  readonly reportIntervalMs?: number;
  /** Version of the app, for reports. */
  readonly clientVersion?: string;
}

/** An operation that is on disk. */
export interface Committed {
  readonly id: string;
  readonly deviceSeq: number;
  /** The number printed, for receipts. */
  readonly receiptNo: string | undefined;
  /** What it came to, for receipts. */
  readonly total: Money | undefined;
}

/** An operation of the journal and what became of it. */
export interface JournalEntry {
  readonly operation: Operation;
  readonly state: HeldOperation["state"];
  /** Why it was rejected, or what was noticed on an accepted one. */
  readonly code: string | undefined;
  readonly detail: string | undefined;
}

/** The client cannot be opened, or not be wiped: `code` says why. */
export class ClientError extends Error {
  constructor(
    readonly code: "not_enrolled" | "other_device" | "unsent_work",
    detail: string,
  ) {
    super(detail);
    this.name = "ClientError";
  }
}

function randomHex(bytes: number): string {
  return [...crypto.getRandomValues(new Uint8Array(bytes))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A device's synced copy of its branch, and its journal of operations. */
export class Client {
  readonly #listeners = new Map<"status" | "change", Set<() => void>>([["status", new Set()], ["change", new Set()]]);
  readonly #catalogue: Catalogue;
  readonly #tabs: Tabs;
  readonly #onNetwork = (): void => this.#driver?.tell({ is: "network_changed", available: navigator.onLine });
  #driver: Driver | undefined;
  #status: Status;
  #isOnline: boolean;
  #isClosed = false;

  /**
   * Redeems a claim code at the server and keeps the device that it made in the database of this name. Repeating it after a lost reply burns nothing.
   * The text of a claim's QR code does, too: it names its server.
   */
  static async enrol(name: string, ofServer: string, claim: string, options: Options = {}): Promise<Client> {
    const { server, code: claimCode } = parseClaimLink(claim) ?? { server: ofServer, code: claim };
    const store = await Store.open(name);
    try {
      const enrolment = await redeem(server, claimCode, await store.getOr(`nonce:${claimCode}`, () => randomHex(16)));
      const held = await store.get<Enrolment>("enrolment");
      if (held !== undefined && (held.deviceId !== enrolment.deviceId || held.branch !== enrolment.branch)) {
        throw new ClientError("other_device", `this is ${held.deviceId} of ${held.branch}: wipe it before it becomes ${enrolment.deviceId} of ${enrolment.branch}`);
      }
      await store.set("enrolment", enrolment);
      await store.set("server", server);
      return await Client.#start(name, store, enrolment, server, options);
    } catch (error) {
      store.close();
      throw error;
    }
  }

  /** Opens the database of an enrolled device; works without a network. */
  static async open(name: string, options: Options = {}): Promise<Client> {
    const store = await Store.open(name);
    const [enrolment, server] = [await store.get<Enrolment>("enrolment"), await store.get<string>("server")];
    if (enrolment === undefined || server === undefined) {
      store.close();
      throw new ClientError("not_enrolled", "no device is enrolled here: redeem a claim code");
    }
    return Client.#start(name, store, enrolment, server, options);
  }

  static async #start(name: string, store: Store, enrolment: Enrolment, server: string, options: Options): Promise<Client> {
    const journal = new Journal(store);
    const client = new Client(name, store, journal, enrolment, server, options, (await store.get<boolean>("online")) ?? true);
    await client.#catalogue.load();
    client.#status = { ...STARTING, isOnline: client.#isOnline, cursor: (await store.position()).cursor, queueDepth: (await journal.queue()).length };
    void client.#tabs.whenFirst(() => client.#lead());
    client.#tabs.tell({ is: "wish", wish: "status" });
    globalThis.addEventListener?.("online", client.#onNetwork);
    globalThis.addEventListener?.("offline", client.#onNetwork);
    return client;
  }

  private constructor(
    private readonly name: string,
    private readonly store: Store,
    private readonly journal: Journal,
    /** Who this device is. */
    readonly enrolment: Enrolment,
    private readonly server: string,
    private readonly options: Options,
    isOnline: boolean,
  ) {
    this.#isOnline = isOnline;
    this.#status = STARTING;
    this.#catalogue = new Catalogue(store, journal);
    this.#tabs = new Tabs(name, (message) => this.#heard(message));
  }

  async #lead(): Promise<void> {
    if (this.#isClosed) return;
    const { store, journal, enrolment, options } = this;
    const journalId = await store.getOr("journal_id", () => randomHex(16));
    const driver = await Driver.start({
      store,
      journal,
      enrolment,
      journalId,
      api: new Api(this.server, enrolment, () => this.#isOnline),
      seed: crypto.getRandomValues(new BigUint64Array(1))[0]!,
      pollIntervalMs: options.pollIntervalMs ?? POLL_INTERVAL_S * 1000,
      reportIntervalMs: options.reportIntervalMs ?? 60_000,
      clientVersion: options.clientVersion ?? "@mstore/client 0.1.0",
      isOnline: () => this.#isOnline,
      onApplied: ({ touched }) => {
        this.#tabs.tell({ is: "applied", touched });
        void this.#refresh(touched);
      },
      onJournal: () => {
        this.#tabs.tell({ is: "journal" });
        void this.#refresh(new Map());
      },
      onStatus: (status) => {
        this.#tabs.tell({ is: "status", status });
        this.#setStatus(status);
      },
    });
    this.#driver = driver;
    // It was closed meanwhile.
    if (this.#isClosed) await driver.close();
  }

  #heard(message: TabMessage): void {
    switch (message.is) {
      case "committed":
        this.#driver?.tell({ is: "operation_committed", operation: message.operation });
        return void this.#refresh(new Map());
      case "applied":
        return void (message.touched === undefined ? this.#catalogue.load().then(() => this.#emit("change")) : this.#refresh(message.touched));
      case "journal":
        return void this.#refresh(new Map());
      case "status":
        return this.#setStatus(message.status);
      case "wish":
        return this.#grant(message.wish);
    }
  }

  /** What a page asks of whichever page drives. */
  #grant(wish: Wish): void {
    if (wish === "online" || wish === "offline") this.#isOnline = wish === "online";
    const driver = this.#driver;
    if (driver === undefined) return;
    switch (wish) {
      case "sync":
        return driver.tell({ is: "sync_requested" });
      case "resync":
        return driver.tell({ is: "resync_requested" });
      case "dead_letters":
        return driver.settleDeadLetters();
      case "online":
      case "offline":
        return driver.switched(this.#isOnline);
      case "status":
        return this.#tabs.tell({ is: "status", status: this.#status });
    }
  }

  #ask(wish: Wish): void {
    this.#grant(wish);
    this.#tabs.tell({ is: "wish", wish });
  }

  async #refresh(touched: ReadonlyMap<string, readonly string[]>): Promise<void> {
    if (this.#isClosed) return;
    await this.#catalogue.refresh(touched).catch(() => undefined);
    this.#emit("change");
  }

  #setStatus(status: Status): void {
    this.#status = status;
    this.#emit("status");
  }

  #emit(event: "status" | "change"): void {
    for (const listener of this.#listeners.get(event) ?? []) listener();
  }

  /** Calls `listener` whenever the status, or what can be read, has changed; gives what ends it. */
  on(event: "status" | "change", listener: () => void): () => void {
    this.#listeners.get(event)?.add(listener);
    return () => this.#listeners.get(event)?.delete(listener);
  }

  // ---- reading ----

  /** The state now. */
  get status(): Status {
    return this.#status;
  }

  /** One product, its stock with the effect of own pending operations. */
  product(id: string): Product | undefined {
    return this.#catalogue.product(id);
  }

  /** All products, by id. */
  products(): Product[] {
    return this.#catalogue.products();
  }

  /** All inventory items, by id. */
  inventory(): InventoryItem[] {
    return this.#catalogue.inventory();
  }

  /** All rows of a collection as the server sent them: canonical texts by id. */
  async rows(collection: string): Promise<string[]> {
    return (await this.store.rows(collection)).map(({ body }) => body);
  }

  /** The digests of what is shown, by collection. */
  async digests(): Promise<ReadonlyMap<string, string>> {
    return (await this.store.position()).digests;
  }

  /** The newest operations of this device, the last first. */
  async recent(limit: number): Promise<JournalEntry[]> {
    return (await this.journal.recent(limit)).map(entryOf);
  }

  /** Rejected operations that somebody must look at: correct, retry or discard them. */
  async deadLetters(): Promise<JournalEntry[]> {
    return (await this.journal.inState("rejected")).map(entryOf);
  }

  // ---- operations ----

  /** Records a sale. When this resolves it is on disk and will reach the server exactly once; print the receipt then, not before. */
  async commitSale(receipt: NewReceipt): Promise<Committed> {
    return this.#commitReceipt("sale", receipt);
  }

  /** Records goods taken back; quantities are positive here too. */
  async commitReturn(receipt: NewReceipt): Promise<Committed> {
    return this.#commitReceipt("return", receipt);
  }

  async #commitReceipt(type: "sale" | "return", receipt: NewReceipt): Promise<Committed> {
    const at = wall();
    const priceOf = (id: string): Money | undefined => this.#catalogue.product(id)?.price;
    return this.#write(at, undefined, (deviceSeq) => {
      const number = `${this.enrolment.deviceId}-${String(deviceSeq).padStart(6, "0")}`;
      return { type, ...complete(receipt, number, at, priceOf) };
    });
  }

  /** Records any operation: goods received, adjusted, counted, transferred, receipts as they are. */
  async commit(kind: OperationKind): Promise<Committed> {
    return this.#write(wall(), undefined, () => kind);
  }

  async #write(at: number, replaces: string | undefined, make: (deviceSeq: number) => OperationKind): Promise<Committed> {
    const id = operationIdOf(wall(), crypto.getRandomValues(new Uint8Array(10)));
    const product = (productId: string): string | undefined => this.#catalogue.productRow(productId);
    const { kind, device_seq: deviceSeq } = await this.journal.commit({ id, at, replaces, make, product });
    const operation = { id, at };
    if (this.#driver === undefined) this.#status = { ...this.#status, queueDepth: this.#status.queueDepth + 1 };
    this.#driver?.tell({ is: "operation_committed", operation });
    this.#tabs.tell({ is: "committed", operation });
    await this.#refresh(new Map());
    const [receiptNo, total] = "lines" in kind ? [kind.receipt_no, kind.total] : [undefined, undefined];
    return { id, deviceSeq, receiptNo, total };
  }

  /** Sends a rejected operation again as it was, under a new id that names the old one. */
  async retry(letter: JournalEntry): Promise<Committed> {
    return this.edit(letter, letter.operation.kind);
  }

  /** Sends something else in the place of a rejected operation. */
  async edit(letter: JournalEntry, kind: OperationKind): Promise<Committed> {
    const committed = await this.#write(Date.parse(letter.operation.occurred_at), letter.operation.id, () => kind);
    this.#ask("dead_letters");
    return committed;
  }

  /** Gives a rejected operation up; false if somebody had decided about it before. */
  async discard(letter: JournalEntry): Promise<boolean> {
    const done = await this.journal.discard(letter.operation.id);
    this.#ask("dead_letters");
    await this.#refresh(new Map());
    this.#tabs.tell({ is: "journal" });
    return done;
  }

  // ---- sync ----

  /** Asks the server now, whatever the timers say. */
  syncNow(): void {
    this.#ask("sync");
  }

  /** Fetches everything anew. What is shown stays until all is there; the queue stays in any case. */
  resync(): void {
    this.#ask("resync");
  }

  /** Switches this device's network off or on, until it is switched again: connections are closed, calls fail. */
  async setOnline(online: boolean): Promise<void> {
    await this.store.set("online", online);
    this.#ask(online ? "online" : "offline");
    this.#setStatus({ ...this.#status, isOnline: online });
  }

  /** Waits until the server has judged every operation: before a shift is closed. Gives how many are left. */
  async drain(timeoutMs: number): Promise<number> {
    const end = wall() + timeoutMs;
    for (;;) {
      const left = (await this.journal.queue()).length;
      if (left === 0 || wall() >= end) return left;
      await new Promise((resolve) => setTimeout(resolve, DRAIN_LOOK_MS));
    }
  }

  /** Ends the sync of this page; what is on disk stays. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    globalThis.removeEventListener?.("online", this.#onNetwork);
    globalThis.removeEventListener?.("offline", this.#onNetwork);
    await this.#driver?.close();
    this.#tabs.close();
    this.store.close();
  }

  /** Deletes the database. Refused while it holds anything that has not reached the server. */
  async wipe(): Promise<void> {
    const waiting = (await this.journal.queue()).length + (await this.journal.inState("rejected")).length;
    if (waiting > 0) throw new ClientError("unsent_work", `${waiting} operations are not settled with the server`);
    await this.close();
    await deleteDB(this.name);
  }
}

function entryOf({ body, state, code, detail }: HeldOperation): JournalEntry {
  return { operation: parseOperation(body).operation, state, code, detail };
}
