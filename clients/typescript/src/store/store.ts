/** The local database: rows, cursor and contained operations change in one transaction, or not at all. */

import { type IDBPTransaction, type StoreNames } from "idb";

import type { ReadyCommit } from "../engine/buffer.js";
import type { Comparison, Known, QueuedOperation } from "../engine/input.js";
import type { Change } from "../protocol/frame.js";
import { type Cursor, cursorText, parseCursor } from "../protocol/cursor.js";
import { bucketOf, type Digest, DigestSum, EMPTY_DIGEST, rowHash, SUB_DIGESTS } from "../protocol/digest.js";
import type { Digests } from "../protocol/head.js";
import { patchRow } from "../protocol/row.js";
import { forgetPromisesOfOldEpoch, hasRequeued, leaveOverlay } from "./overlay.js";
import { type Database, type HeldPosition, type HeldRow, openDatabase, type StagedRow, type StagingNote, type TillSchema } from "./schema.js";
import type { Staged } from "./staged.js";

/** Everything that one transaction that shows something touches. */
const SHOWN = ["state", "row", "staging", "operation", "effect"] as const satisfies readonly StoreNames<TillSchema>[];
export type ShowTransaction = IDBPTransaction<TillSchema, typeof SHOWN, "readwrite">;

/** A patch of a row that is not here, or a commit that does not follow: fetch what is missing. */
export class BaseMissing extends Error {}

/** The server's rows of some ranges of a collection. */
export interface FetchedRange {
  readonly collection: string;
  readonly ranges: readonly number[];
  readonly rows: readonly HeldRow[];
}

/** What a transaction that showed something did. */
export interface Applied {
  readonly cursor: Cursor;
  readonly digests: Digests;
  /** Rows put, patched or deleted, by collection. */
  readonly touched: ReadonlyMap<string, readonly string[]>;
  readonly changes: number;
  /** Operations may wait for a verdict again: look at the queue. */
  readonly requeued: boolean;
}

/** Digests while they change. */
class Sums {
  readonly #sums = new Map<string, DigestSum>();

  constructor(from: Digests) {
    for (const [collection, digest] of from) this.#sums.set(collection, new DigestSum(digest));
  }

  replace(collection: string, old: Digest | undefined, now: Digest | undefined): void {
    let sum = this.#sums.get(collection);
    if (sum === undefined) this.#sums.set(collection, (sum = new DigestSum()));
    sum.replace(old, now);
  }

  get digests(): Digests {
    return new Map([...this.#sums].map(([collection, sum]) => [collection, sum.value]));
  }
}

/** Rows touched by a transaction. */
class Touched {
  readonly byCollection = new Map<string, string[]>();
  changes = 0;

  add(collection: string, id: string): void {
    this.changes += 1;
    const ids = this.byCollection.get(collection);
    if (ids === undefined) this.byCollection.set(collection, [id]);
    else ids.push(id);
  }
}

/** What of the branch is here. */
export class Store {
  private constructor(readonly db: Database) {}

  static async open(name: string): Promise<Store> {
    return new Store(await openDatabase(name));
  }

  close(): void {
    this.db.close();
  }

  async get<T>(name: string): Promise<T | undefined> {
    return (await this.db.get("state", name)) as T | undefined;
  }

  async set(name: string, value: unknown): Promise<void> {
    await this.db.put("state", value, name);
  }

  /** The value of `name`, made by `make` when there is none yet, whichever page is first. */
  async getOr(name: string, make: () => string): Promise<string> {
    const tx = this.db.transaction("state", "readwrite", { durability: "strict" });
    const held = (await tx.store.get(name)) as string | undefined;
    const value = held ?? make();
    if (held === undefined) await tx.store.put(value, name);
    await tx.done;
    return value;
  }

  /** What is shown, and the stored digests there. */
  async position(): Promise<{ cursor: Cursor | undefined; digests: Digests }> {
    const held = await this.get<HeldPosition>("position");
    return held === undefined ? { cursor: undefined, digests: new Map() } : { cursor: parseCursor(held.cursor), digests: held.digests };
  }

  /** What a session begins with. */
  async known(queue: readonly QueuedOperation[]): Promise<Known & { readonly ops: readonly string[] }> {
    const note = await this.get<StagingNote>("staging");
    const resume = note === undefined ? undefined : { position: note.position, snapshot: note.snapshot };
    return { ...(await this.position()), resume, queue, ops: note?.ops ?? [] };
  }

  /** Runs `work` in one transaction over everything that is shown; nothing of it stays if it fails. */
  async #show(work: (tx: ShowTransaction, held: HeldPosition | undefined) => Promise<Omit<Applied, "requeued">>): Promise<Applied> {
    const tx = this.db.transaction(SHOWN, "readwrite");
    try {
      const held = (await tx.objectStore("state").get("position")) as HeldPosition | undefined;
      const done = await work(tx, held);
      const position: HeldPosition = { cursor: cursorText(done.cursor), digests: done.digests };
      await tx.objectStore("state").put(position, "position");
      const requeued = await hasRequeued(tx);
      await tx.done;
      return { ...done, requeued };
    } catch (error) {
      tryAbort(tx);
      await tx.done.catch(() => undefined);
      throw error;
    }
  }

  /** Shows commits, each of which follows the one before. */
  async apply(commits: readonly ReadyCommit[]): Promise<Applied> {
    return this.#show(async (tx, held) => {
      let here = held === undefined ? undefined : parseCursor(held.cursor);
      const [sums, touched] = [new Sums(held?.digests ?? new Map()), new Touched()];
      for (const { cursor, parts } of commits) {
        if (here === undefined || here.epoch !== cursor.epoch || here.seq + 1 !== cursor.seq) {
          throw new BaseMissing(`commit ${cursorText(cursor)} does not follow`);
        }
        here = cursor;
        for (const { collection, frame } of parts) {
          for (const change of frame.changes) await applyChange(tx, collection, frame.seq, change, sums, touched);
        }
      }
      const cursor = commits.at(-1)!.cursor;
      await leaveOverlay(tx, cursor, commits.flatMap(({ ops }) => ops));
      return { cursor, digests: sums.digests, touched: touched.byCollection, changes: touched.changes };
    });
  }

  /** Shows what is staged. For a snapshot every other row goes. */
  async show(staged: Staged, to: Cursor, snapshot: boolean): Promise<Applied> {
    return this.#show(async (tx, held) => {
      const touched = new Touched();
      const sums = new Sums(snapshot ? new Map() : (held?.digests ?? new Map()));
      if (snapshot) await tx.objectStore("row").clear();
      const rows = staged.spilled ? [...(await tx.objectStore("staging").getAll()), ...staged.rows] : staged.rows;
      await putRows(tx, lastOfEach(rows), snapshot, sums, touched);
      await clearStaging(tx);
      await leaveOverlay(tx, to, staged.ops);
      await forgetPromisesOfOldEpoch(tx, held, to, snapshot);
      return { cursor: to, digests: sums.digests, touched: touched.byCollection, changes: touched.changes };
    });
  }

  /** The server has the same rows under another numbering. */
  async adopt(to: Cursor): Promise<Applied> {
    return this.#show(async (tx, held) => {
      await forgetPromisesOfOldEpoch(tx, held, to, false);
      return { cursor: to, digests: held?.digests ?? new Map(), touched: new Map(), changes: 0 };
    });
  }

  /** Takes over another numbering: ranges first, what came since they were compared on top, all of it in one transaction. */
  async renumber(staged: Staged, fetched: readonly FetchedRange[], to: Cursor): Promise<Applied> {
    return this.#show(async (tx, held) => {
      const touched = new Touched();
      for (const range of fetched) await putRange(tx, range, touched);
      await putRows(tx, lastOfEach(staged.rows), false, new Sums(new Map()), touched);
      await leaveOverlay(tx, to, staged.ops);
      await forgetPromisesOfOldEpoch(tx, held, to, false);
      const digests = countAnew(await tx.objectStore("row").getAll());
      return { cursor: to, digests, touched: touched.byCollection, changes: touched.changes };
    });
  }

  /** Puts the server's rows in the place of whatever is in those ranges, and counts the collection anew. */
  async replaceRanges(fetched: FetchedRange): Promise<Applied | undefined> {
    const { cursor } = await this.position();
    if (cursor === undefined) return undefined;
    return this.#show(async (tx, held) => {
      const touched = new Touched();
      await putRange(tx, fetched, touched);
      const rows = await tx.objectStore("row").getAll(IDBKeyRange.bound([fetched.collection], [fetched.collection, []]));
      // A stored hash that does not fit its text is written anew.
      for (const row of rows) {
        const hash = rowHash(row.collection, row.id, row.body);
        if (hash !== row.hash) await tx.objectStore("row").put({ ...row, hash });
      }
      const sum = countAnew(rows).get(fetched.collection) ?? EMPTY_DIGEST;
      const digests = new Map(held?.digests ?? []).set(fetched.collection, sum);
      return { cursor, digests, touched: touched.byCollection, changes: touched.changes };
    });
  }

  /** Counts every row anew, from its text: the collections that do not add up. Nothing before the first snapshot. */
  async recount(): Promise<{ cursor: Cursor; altered: readonly string[] } | undefined> {
    const tx = this.db.transaction(["state", "row"], "readonly");
    const held = (await tx.objectStore("state").get("position")) as HeldPosition | undefined;
    const rows = await tx.objectStore("row").getAll();
    await tx.done;
    const cursor = held === undefined ? undefined : parseCursor(held.cursor);
    if (held === undefined || cursor === undefined) return undefined;
    const [counted, lies] = [countAnew(rows), new Set<string>()];
    for (const row of rows) if (rowHash(row.collection, row.id, row.body) !== row.hash) lies.add(row.collection);
    const names = [...new Set([...held.digests.keys(), ...counted.keys()])].sort();
    const isAltered = (name: string): boolean => lies.has(name) || (counted.get(name) ?? EMPTY_DIGEST) !== (held.digests.get(name) ?? EMPTY_DIGEST);
    return { cursor, altered: names.filter(isAltered) };
  }

  /** Compares the server's 256 sub-digests with those of the texts here. */
  async compare(collection: string, at: Cursor, theirs: readonly Digest[]): Promise<Comparison> {
    const sums = Array.from({ length: SUB_DIGESTS }, () => ({ sum: new DigestSum(), rows: 0 }));
    for (const row of await this.rows(collection)) {
      const range = sums[bucketOf(row.id)]!;
      range.sum.add(rowHash(collection, row.id, row.body));
      range.rows += 1;
    }
    const ranges = sums.flatMap(({ sum }, range) => (sum.value === theirs[range] ? [] : [range]));
    return { at, ranges, rows: ranges.reduce((count, range) => count + sums[range]!.rows, 0) };
  }

  /** Writes staged rows to the staging table, so that they outlive this page. */
  async spill(staged: Staged, snapshot: boolean): Promise<void> {
    if (staged.position === undefined) return;
    const tx = this.db.transaction(["state", "staging"], "readwrite");
    const note: StagingNote = { position: staged.position, snapshot, ops: staged.ops };
    if (!staged.spilled) await tx.objectStore("staging").clear();
    for (const row of staged.rows) void tx.objectStore("staging").add(row);
    await tx.objectStore("state").put(note, "staging");
    await tx.done;
    staged.rows.length = 0;
    staged.spilled = true;
    staged.joined = true;
  }

  /** Forgets what is staged. */
  async dropStaged(): Promise<void> {
    const tx = this.db.transaction(["state", "staging"], "readwrite");
    await tx.objectStore("staging").clear();
    await tx.objectStore("state").delete("staging");
    await tx.done;
  }

  /** All rows of a collection, by id. */
  async rows(collection: string): Promise<HeldRow[]> {
    return this.db.getAll("row", IDBKeyRange.bound([collection], [collection, []]));
  }

  /** Some rows of a collection; those that are gone are left out. */
  async rowsOf(collection: string, ids: readonly string[]): Promise<Map<string, HeldRow>> {
    const tx = this.db.transaction("row", "readonly");
    const rows = await Promise.all(ids.map((id) => tx.store.get([collection, id])));
    await tx.done;
    return new Map(rows.flatMap((row) => (row === undefined ? [] : [[row.id, row] as const])));
  }
}

/** Rolls back what a failed transaction did, if it has not done so itself. */
function tryAbort(tx: ShowTransaction): void {
  try {
    tx.abort();
  } catch {
    // It is over already.
  }
}

/** Of rows that stand twice the later one; the order stays. */
function lastOfEach(rows: readonly StagedRow[]): StagedRow[] {
  return [...new Map(rows.map((row) => [`${row.collection}\0${row.id}`, row])).values()];
}

/** Puts rows and deletes others; `isFresh`: there is nothing in their places. */
async function putRows(tx: ShowTransaction, rows: readonly StagedRow[], isFresh: boolean, sums: Sums, touched: Touched): Promise<void> {
  const table = tx.objectStore("row");
  const before = isFresh ? [] : await Promise.all(rows.map(({ collection, id }) => table.get([collection, id])));
  const writes: Promise<unknown>[] = [];
  rows.forEach(({ collection, id, seq, row }, n) => {
    sums.replace(collection, before[n]?.hash, row?.hash);
    touched.add(collection, id);
    if (row !== undefined) writes.push(table.put({ collection, id, seq, body: row.text, hash: row.hash }));
    else if (!isFresh) writes.push(table.delete([collection, id]));
  });
  await Promise.all(writes);
}

async function applyChange(tx: ShowTransaction, collection: string, seq: number, change: Change, sums: Sums, touched: Touched): Promise<void> {
  const table = tx.objectStore("row");
  const { id } = change;
  const old = await table.get([collection, id]);
  touched.add(collection, id);
  if (change.op === "delete") {
    sums.replace(collection, old?.hash, undefined);
    return table.delete([collection, id]);
  }
  let body = change.row;
  if (change.op === "patch") {
    if (old === undefined) throw new BaseMissing(`a patch of ${collection} ${id}, which is not here`);
    body = patchRow({ id, text: old.body }, change.row).text;
  }
  const hash = rowHash(collection, id, body);
  sums.replace(collection, old?.hash, hash);
  await table.put({ collection, id, seq, body, hash });
}

async function putRange(tx: ShowTransaction, fetched: FetchedRange, touched: Touched): Promise<void> {
  const table = tx.objectStore("row");
  const wanted = new Set(fetched.ranges);
  for (const [, id] of await table.getAllKeys(IDBKeyRange.bound([fetched.collection], [fetched.collection, []]))) {
    if (!wanted.has(bucketOf(id))) continue;
    touched.add(fetched.collection, id);
    await table.delete([fetched.collection, id]);
  }
  for (const row of fetched.rows) {
    touched.add(row.collection, row.id);
    await table.put(row);
  }
}

async function clearStaging(tx: ShowTransaction): Promise<void> {
  await tx.objectStore("staging").clear();
  await tx.objectStore("state").delete("staging");
}

/** The sums of texts, whatever their stored hashes say. */
function countAnew(rows: readonly HeldRow[]): Digests {
  const sums = new Sums(new Map());
  for (const row of rows) sums.replace(row.collection, undefined, rowHash(row.collection, row.id, row.body));
  return sums.digests;
}
