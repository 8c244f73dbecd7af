/** The local database: what one transaction does, and that nothing of a failed one stays. */

import "fake-indexeddb/auto";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import type { ReadyCommit } from "../src/engine/buffer.js";
import { type Cursor, cursorText } from "../src/protocol/cursor.js";
import { DigestSum, rowHash } from "../src/protocol/digest.js";
import { parseFrame } from "../src/protocol/frame.js";
import { type OperationKind, operationIdOf } from "../src/protocol/operation.js";
import { parseRow } from "../src/protocol/row.js";
import { Journal, NotRejected } from "../src/store/journal.js";
import { Staged } from "../src/store/staged.js";
import { BaseMissing, Store } from "../src/store/store.js";

const EPOCH = "b5d0c1a97e3f4a62";
let store: Store;
let journal: Journal;
let opened = 0;

beforeEach(async () => {
  opened += 1;
  store = await Store.open(`store-${opened}`);
  journal = new Journal(store);
});

afterEach(() => store.close());

function at(seq: number, epoch = EPOCH): Cursor {
  return { epoch, seq, tag: "9c41d2e07ab85f13" };
}

function tea(stock: string): string {
  return `{"id":"tea","name":"Tea","price":{"amount":1250,"currency":"IDR"},"stock":"${stock}"}`;
}

function sumOf(...rows: string[]): string {
  const sum = new DigestSum();
  for (const row of rows.map(parseRow)) sum.add(rowHash("product", row.id, row.text));
  return sum.value;
}

/** An answer of `/changes` with these rows of products. */
function answer(from: number, to: number, rows: readonly string[], ops: readonly string[] = []): Staged {
  const staged = new Staged();
  staged.feed(`${JSON.stringify({ epoch: EPOCH, from, to, rows: rows.length, ops })}\n`);
  for (const row of rows) staged.feed(`{"c":"product","op":"put","id":"${parseRow(row).id}","seq":${to},"p":"p","row":${row}}\n`);
  staged.feed(`{"end":true,"seq":${to},"tag":"9c41d2e07ab85f13","digests":{}}\n`);
  return staged;
}

function commit(seq: number, changes: unknown[], ops: string[] = []): ReadyCommit {
  const cursor = at(seq);
  const envelope = { v: 1, type: "product.upserted", ...cursor, prev: seq - 1, part: 1, parts: 1, at: "2026-11-22T06:41:00.123Z", ops, changes };
  const frame = parseFrame(JSON.stringify(envelope));
  return { cursor, at: frame.at, ops, parts: [{ collection: "product", frame }] };
}

const patch = (id: string, row: unknown): unknown => ({ op: "patch", id, row });

function sale(quantity: string): OperationKind {
  const total = { amount: 1250, currency: "IDR" };
  const line = { line_no: 1, product_id: "tea", quantity, unit_price: total, total };
  return { type: "sale", lines: [line], tenders: [{ type: "cash", amount: total }], total, receipt_no: "R-1", business_date: "2026-11-22" };
}

async function sell(quantity: string, replaces?: string): Promise<string> {
  const id = operationIdOf(1_795_329_660_000, crypto.getRandomValues(new Uint8Array(10)));
  await journal.commit({ id, at: 1_795_329_660_000, replaces, make: () => sale(quantity), product: () => undefined });
  return id;
}

describe("rows", () => {
  it("show a snapshot, then commits, and keep the digest of what is there", async () => {
    const first = await store.show(answer(0, 5, [tea("41"), '{"id":"gone"}']), at(5), true);
    expect(first.digests.get("product")).toBe(sumOf(tea("41"), '{"id":"gone"}'));
    const then = await store.apply([commit(6, [patch("tea", { stock: "40" }), { op: "delete", id: "gone" }])]);
    expect((await store.rows("product")).map(({ body }) => body)).toEqual([tea("40")]);
    expect([then.digests.get("product"), cursorText(then.cursor)]).toEqual([sumOf(tea("40")), cursorText(at(6))]);
    expect(await store.recount()).toEqual({ cursor: at(6), altered: [] });
  });

  it("nothing of a commit stays when one of its changes has no base", async () => {
    await store.show(answer(0, 5, [tea("41")]), at(5), true);
    const broken = commit(6, [patch("tea", { stock: "40" }), patch("unknown", { stock: "1" })]);
    await expect(store.apply([broken])).rejects.toBeInstanceOf(BaseMissing);
    expect((await store.rows("product")).map(({ body }) => body)).toEqual([tea("41")]);
    expect((await store.position()).cursor).toEqual(at(5));
  });

  it("a commit that does not follow is not shown", async () => {
    await store.show(answer(0, 5, [tea("41")]), at(5), true);
    await expect(store.apply([commit(7, [patch("tea", { stock: "39" })])])).rejects.toBeInstanceOf(BaseMissing);
  });

  it("a row that was edited behind the client's back is found by counting and replaced by range", async () => {
    await store.show(answer(0, 5, [tea("41")]), at(5), true);
    const [row] = await store.rows("product");
    await store.db.put("row", { ...row!, body: tea("4100") });
    expect((await store.recount())?.altered).toEqual(["product"]);
    const truth = parseRow(tea("41"));
    const theirs = Array.from({ length: 256 }, () => "0".repeat(32));
    const { ranges } = await store.compare("product", at(5), theirs);
    expect(ranges.length).toBe(1);
    const fetched = { collection: "product", id: "tea", seq: 5, body: truth.text, hash: rowHash("product", "tea", truth.text) };
    const repaired = await store.replaceRanges({ collection: "product", ranges, rows: [fetched] });
    expect(repaired?.digests.get("product")).toBe(sumOf(tea("41")));
    expect((await store.recount())?.altered).toEqual([]);
  });

  it("a broken answer is kept for later and shown with the rest of it", async () => {
    const broken = new Staged();
    broken.feed(`{"epoch":"${EPOCH}","from":0,"to":5,"rows":2}\n{"c":"product","op":"put","id":"tea","seq":5,"p":"p-1","row":${tea("41")}}\n{"c":"pro`);
    expect(broken.end).toBeUndefined();
    await store.spill(broken, true);
    const known = await store.known([]);
    expect(known.resume).toEqual({ position: "p-1", snapshot: true });
    expect(await store.rows("product")).toEqual([]);
    const rest = Staged.onDisk(known.ops);
    rest.goOn();
    rest.feed(`{"epoch":"${EPOCH}","from":0,"to":5,"rows":1}\n{"c":"product","op":"put","id":"b","seq":5,"p":"p-2","row":{"id":"b"}}\n`);
    rest.feed('{"end":true,"seq":5,"tag":"9c41d2e07ab85f13","digests":{}}\n');
    const shown = await store.show(rest, at(5), true);
    expect(shown.digests.get("product")).toBe(sumOf(tea("41"), '{"id":"b"}'));
    expect((await store.known([])).resume).toBeUndefined();
  });
});

describe("the journal", () => {
  it("numbers are dense, whoever writes at the same time, and an operation that is refused takes none", async () => {
    await Promise.all([sell("1"), sell("2"), sell("3")]);
    await expect(sell("-1")).rejects.toThrow("above 0");
    await sell("4");
    expect((await journal.recent(9)).map(({ deviceSeq }) => deviceSeq)).toEqual([4, 3, 2, 1]);
  });

  it("an operation counts in the stock until the very transaction that shows its commit", async () => {
    await store.show(answer(0, 5, [tea("41")]), at(5), true);
    const id = await sell("2");
    expect((await journal.effects()).map(({ milli }) => milli)).toEqual([-2000]);
    await journal.settle([{ id, status: "accepted", seq: 6, code: undefined, detail: undefined }], at(5));
    expect((await journal.effects()).length).toBe(1);
    await store.apply([commit(6, [patch("tea", { stock: "39" })], [id])]);
    expect(await journal.effects()).toEqual([]);
  });

  it("an accepted operation whose commit does not name it is handed in again, once", async () => {
    await store.show(answer(0, 5, [tea("41")]), at(5), true);
    const id = await sell("2");
    await journal.settle([{ id, status: "accepted", seq: 6, code: undefined, detail: undefined }], at(5));
    const passed = await store.apply([commit(6, [patch("tea", { stock: "39" })])]);
    expect([passed.requeued, (await journal.queue()).map((held) => held.id)]).toEqual([true, [id]]);
    expect(await journal.settle([{ id, status: "duplicate", seq: 6, code: undefined, detail: undefined }], at(6))).toBe(false);
    expect(await journal.queue()).toEqual([]);
  });

  it("another numbering, or everything anew, hands accepted operations in again", async () => {
    await store.show(answer(0, 5, [tea("41")]), at(5), true);
    const id = await sell("2");
    await journal.settle([{ id, status: "accepted", seq: 6, code: undefined, detail: undefined }], at(5));
    await store.apply([commit(6, [patch("tea", { stock: "39" })], [id])]);
    expect(await journal.queue()).toEqual([]);
    await store.adopt(at(2, "0000000000000001"));
    expect((await journal.queue()).map((held) => held.id)).toEqual([id]);
  });

  it("a rejected operation leaves the stock, and one decision about it counts", async () => {
    const id = await sell("2");
    await journal.settle([{ id, status: "rejected", seq: undefined, code: "unknown_product", detail: "no tea" }], undefined);
    expect([await journal.effects(), (await journal.inState("rejected")).map(({ code }) => code)]).toEqual([[], ["unknown_product"]]);
    const instead = await sell("1", id);
    await expect(sell("1", id)).rejects.toBeInstanceOf(NotRejected);
    expect(await journal.discard(id)).toBe(false);
    const { decided } = await journal.undecided();
    expect(decided).toEqual([{ id, device_seq: 1, replaced_by: instead }]);
    await journal.decided(decided, []);
    expect((await journal.undecided()).decided).toEqual([]);
  });
});
