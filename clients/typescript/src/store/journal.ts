/** The journal: operations on disk before anybody is told, their verdicts, and what becomes of rejected ones. */

import type { QueuedOperation } from "../engine/input.js";
import type { LocalDecision, OperationDecision } from "../protocol/dead_letter.js";
import { JOURNAL_KEEP_DAYS, OPERATIONS_PER_UPLOAD_MAX } from "../protocol/limits.js";
import { type Operation, type OperationKind, operationText } from "../protocol/operation.js";
import { timestampText } from "../protocol/timestamp.js";
import type { Verdict } from "../protocol/upload.js";
import { effectsOf } from "./effects.js";
import { forgetEffects, hasRequeued, leaveOverlay, mayReturn } from "./overlay.js";
import type { HeldEffect, HeldOperation } from "./schema.js";
import type { Applied, Store } from "./store.js";

const DAY_MS = 86_400_000;
const ALL = ["state", "row", "staging", "operation", "effect"] as const;

/** The operation to be replaced is no dead letter: somebody has decided about it already. */
export class NotRejected extends Error {}

/** What is to be written. */
export interface NewOperation {
  readonly id: string;
  /** By the device's clock, milliseconds since 1970. */
  readonly at: number;
  readonly replaces?: string | undefined;
  /** Makes the operation, given its number; pure, because it may run while a transaction waits. */
  readonly make: (deviceSeq: number) => OperationKind;
  /** The products that it may consume ingredients of. */
  readonly product: (id: string) => string | undefined;
}

/** Operations of one device. */
export class Journal {
  constructor(private readonly store: Store) {}

  /** Writes an operation and its effect on the overlay. When this resolves, the browser has been told to put it on disk and has said that it did. */
  async commit(wanted: NewOperation): Promise<Operation> {
    const tx = this.store.db.transaction(["state", "operation", "effect"], "readwrite", { durability: "strict" });
    try {
      const deviceSeq = (((await tx.objectStore("state").get("device_seq")) as number | undefined) ?? 0) + 1;
      const { id, at, replaces } = wanted;
      const kind = wanted.make(deviceSeq);
      const operation: Operation = { id, device_seq: deviceSeq, occurred_at: timestampText(at), replaces, kind };
      const body = operationText(operation);
      await tx.objectStore("state").put(deviceSeq, "device_seq");
      await tx.objectStore("operation").add({ deviceSeq, id, at, body, state: "queued", shown: 0, named: false, told: false, byOperator: false });
      if (replaces !== undefined) {
        const old = await tx.objectStore("operation").index("id").get(replaces);
        if (old?.state !== "rejected") throw new NotRejected(`${replaces} is no dead letter`);
        await tx.objectStore("operation").put({ ...old, state: "replaced", replacedBy: id });
      }
      for (const [n, effect] of effectsOf(kind, wanted.product).entries()) await tx.objectStore("effect").add({ ...effect, deviceSeq, n });
      await tx.done;
      return operation;
    } catch (error) {
      try {
        tx.abort();
      } catch {
        // It is over already.
      }
      await tx.done.catch(() => undefined);
      throw error;
    }
  }

  /** Operations in this state, by their number. */
  async inState(state: HeldOperation["state"]): Promise<HeldOperation[]> {
    const held = await this.store.db.getAllFromIndex("operation", "state", state);
    return held.sort((a, b) => a.deviceSeq - b.deviceSeq);
  }

  /** Operations without a verdict, in their order. */
  async queue(): Promise<QueuedOperation[]> {
    return (await this.inState("queued")).map(({ id, at }) => ({ id, at }));
  }

  /** The newest operations, the last first. */
  async recent(limit: number): Promise<HeldOperation[]> {
    const found: HeldOperation[] = [];
    let cursor = await this.store.db.transaction("operation").store.openCursor(null, "prev");
    while (cursor !== null && found.length < limit) {
      found.push(cursor.value);
      cursor = await cursor.continue();
    }
    return found;
  }

  /** What pending operations do to stock, in the order of their numbers. */
  async effects(): Promise<HeldEffect[]> {
    const effects = await this.store.db.getAll("effect");
    return effects.sort((a, b) => a.deviceSeq - b.deviceSeq || a.n - b.n);
  }

  /** The bodies of operations, in the order asked for. */
  async bodies(ids: readonly string[]): Promise<string[]> {
    const tx = this.store.db.transaction("operation", "readonly");
    const held = await Promise.all(ids.map((id) => tx.store.index("id").get(id)));
    return held.map((operation, n) => {
      if (operation === undefined) throw new Error(`operation ${ids[n]} is queued and not in the journal`);
      return operation.body;
    });
  }

  async #change(which: (held: HeldOperation) => HeldOperation | undefined): Promise<void> {
    const tx = this.store.db.transaction("operation", "readwrite", { durability: "strict" });
    for (const held of await tx.store.getAll()) {
      const changed = which(held);
      if (changed !== undefined) await tx.store.put(changed);
    }
    await tx.done;
  }

  /** Accepted operations young enough to be handed in again wait for a verdict again; gives all that wait. */
  async requeue(now: number): Promise<QueuedOperation[]> {
    const since = now - JOURNAL_KEEP_DAYS * DAY_MS;
    await this.#change((held) => (mayReturn(held) && held.at >= since ? { ...held, state: "queued" } : undefined));
    return this.queue();
  }

  /**
   * What a new session has to send. Accepted operations whose commit was not shown wait for a verdict again: it does not know what number they were
   * given, and so could not tell that the server has lost them. What was settled long ago is forgotten.
   */
  async begin(now: number): Promise<QueuedOperation[]> {
    await this.#change((held) => (held.state === "accepted" && held.shown === 0 ? { ...held, state: "queued" } : undefined));
    const tx = this.store.db.transaction("operation", "readwrite");
    for (const held of await tx.store.getAll()) {
      const isSettled = (held.state === "accepted" && held.shown === 1) || ((held.state === "replaced" || held.state === "discarded") && held.told);
      if (isSettled && held.at < now - JOURNAL_KEEP_DAYS * DAY_MS) await tx.store.delete(held.deviceSeq);
    }
    await tx.done;
    return this.queue();
  }

  /**
   * Writes verdicts down; true when some operation waits for one again. An accepted operation stays in the overlay until its commit is shown; a
   * rejected one leaves it now.
   */
  async settle(verdicts: readonly Verdict[], cursor: Applied["cursor"] | undefined): Promise<boolean> {
    const tx = this.store.db.transaction(ALL, "readwrite", { durability: "strict" });
    const operations = tx.objectStore("operation");
    for (const { id, status, seq, code, detail } of verdicts) {
      const held = await operations.index("id").get(id);
      if (held?.state !== "queued") continue;
      if (status === "rejected") {
        await operations.put({ ...held, state: "rejected", code: code ?? "unknown", detail });
        await forgetEffects(tx, held.deviceSeq);
      } else {
        const named = code === "awaits_backend" ? false : held.named;
        await operations.put({ ...held, state: "accepted", epoch: cursor?.epoch, seq, code, detail, named });
      }
    }
    if (cursor !== undefined) await leaveOverlay(tx, cursor, []);
    const requeued = await hasRequeued(tx);
    await tx.done;
    return requeued;
  }

  /** Gives a rejected operation up; it stays in the journal for the record. */
  async discard(id: string): Promise<boolean> {
    const tx = this.store.db.transaction("operation", "readwrite", { durability: "strict" });
    const held = await tx.store.index("id").get(id);
    const isOpen = held?.state === "rejected";
    if (isOpen) await tx.store.put({ ...held, state: "discarded" });
    await tx.done;
    return isOpen;
  }

  /** Decisions that the server has not heard of, and dead letters that it may have decided about; the oldest of each. */
  async undecided(): Promise<{ decided: LocalDecision[]; open: string[] }> {
    const decided = [...(await this.inState("replaced")), ...(await this.inState("discarded"))]
      .filter((held) => !held.told)
      .sort((a, b) => a.deviceSeq - b.deviceSeq)
      .map((held) => ({ id: held.id, device_seq: held.deviceSeq, replaced_by: held.replacedBy ?? null }));
    const open = (await this.inState("rejected")).map(({ id }) => id);
    return { decided: decided.slice(0, OPERATIONS_PER_UPLOAD_MAX), open: open.slice(0, OPERATIONS_PER_UPLOAD_MAX) };
  }

  /** The server has heard of `told`, and these are the decisions that count; an operator's takes the place of one made here in vain. */
  async decided(told: readonly LocalDecision[], standing: readonly OperationDecision[]): Promise<void> {
    const heard = new Set(told.map(({ id }) => id));
    const overruling = new Map(standing.filter(({ decidedBy }) => decidedBy === "operator").map((decision) => [decision.id, decision]));
    await this.#change((held) => {
      const decision = held.state === "rejected" || held.state === "discarded" ? overruling.get(held.id) : undefined;
      if (decision === undefined) return heard.has(held.id) ? { ...held, told: true } : undefined;
      const what = decision.decision === "replaced" ? "sent again by an operator" : "discarded by an operator";
      const detail = decision.reason === "" ? what : `${what}: ${decision.reason}`;
      return { ...held, state: decision.decision, replacedBy: decision.replacedBy, detail, told: true, byOperator: true };
    });
  }
}
