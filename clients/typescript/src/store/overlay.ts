/** The journal's part of every transaction that shows something: which operations the stream contains from here on. */

import { type Cursor, parseCursor } from "../protocol/cursor.js";
import type { HeldOperation, HeldPosition } from "./schema.js";
import type { ShowTransaction } from "./store.js";

/**
 * Operations that the stream contains from here on no longer count as pending: those it names, and those whose commit it has passed. One whose
 * commit went by without naming it waits for a verdict again, once: the server may have lost it, and resending is safe.
 */
export async function leaveOverlay(tx: ShowTransaction, cursor: Cursor, ops: readonly string[]): Promise<void> {
  const operations = tx.objectStore("operation");
  const candidates = new Map((await operations.index("shown").getAll(0)).map((held) => [held.id, held]));
  const named = new Set(ops);
  for (const id of named) {
    const held = candidates.get(id) ?? (await operations.index("id").get(id));
    if (held !== undefined) candidates.set(id, held);
  }
  for (const held of candidates.values()) {
    const isNamed = named.has(held.id) && !held.named;
    const isPassed = held.state === "accepted" && held.shown === 0 && (held.epoch ?? cursor.epoch) === cursor.epoch && held.seq !== undefined && held.seq <= cursor.seq;
    if (!isNamed && !isPassed) continue;
    // One that a merchant's backend was to decide about is asked after: it was accepted for good, or it is a dead letter now.
    const asksAgain = isNamed ? held.state === "accepted" && held.code === "awaits_backend" : !held.named;
    await operations.put({ ...held, shown: 1, named: true, state: asksAgain ? "queued" : held.state });
    await forgetEffects(tx, held.deviceSeq);
  }
}

/** The operation counts in no figure any more. */
export async function forgetEffects(tx: ShowTransaction, deviceSeq: number): Promise<void> {
  const effects = tx.objectStore("effect");
  for (const key of await effects.index("deviceSeq").getAllKeys(deviceSeq)) await effects.delete(key);
}

/** Whether an operation that had its verdict waits for one again. */
export async function hasRequeued(tx: ShowTransaction): Promise<boolean> {
  const queued = await tx.objectStore("operation").index("state").getAll("queued");
  return queued.some((held) => held.seq !== undefined || held.code === "awaits_backend");
}

/** Whether it may be handed in again. */
export function mayReturn(held: HeldOperation): boolean {
  return held.state === "accepted" || (held.state === "replaced" && held.byOperator);
}

/**
 * Another numbering, or everything anew, is taken over: accepted operations wait for a verdict again, in the same transaction, so that no crash
 * in between leaves them with a server that may have forgotten them.
 */
export async function forgetPromisesOfOldEpoch(tx: ShowTransaction, held: HeldPosition | undefined, to: Cursor, snapshot: boolean): Promise<void> {
  const from = held === undefined ? undefined : parseCursor(held.cursor);
  if (from === undefined || (!snapshot && from.epoch === to.epoch)) return;
  const operations = tx.objectStore("operation");
  for (const operation of await operations.getAll()) {
    const isDecided = operation.state === "replaced" || operation.state === "discarded";
    const state = mayReturn(operation) ? "queued" : operation.state;
    // It may have forgotten the decisions about rejected ones, too.
    if (state !== operation.state || isDecided) await operations.put({ ...operation, state, told: isDecided ? false : operation.told });
  }
}
