/** The client for browsers against a real server, its IndexedDB in memory: first sync, sales both ways, offline and back, rejection. */

import "fake-indexeddb/auto";
import { afterAll, beforeAll, expect, it } from "vitest";

import { Client } from "@mstore/client";
import { eventually, Shop } from "./shop.js";

let shop: Shop;
const open: Client[] = [];

beforeAll(async () => {
  shop = await Shop.open();
});

afterAll(async () => {
  for (const client of open) await client.close();
  await shop?.close();
});

async function enrol(id: string): Promise<Client> {
  const client = await Client.enrol(id, shop.url, shop.claim(id));
  open.push(client);
  await eventually(`${id} is live`, () => client.status.state.name === "live" || undefined);
  return client;
}

function stock(client: Client, id: string): string | undefined {
  return client.product(id)?.stock;
}

/** Without collections that are empty, in one order. */
function spelt(digests: Iterable<[string, string]>): string {
  return JSON.stringify([...digests].filter(([, digest]) => /[1-9a-f]/.test(digest)).sort());
}

async function digests(client: Client): Promise<string> {
  return spelt(await client.digests());
}

async function serverDigests({ enrolment }: Client): Promise<string> {
  const headers = { authorization: `Bearer ${enrolment.deviceId}:${enrolment.token}` };
  const head = (await (await fetch(`${shop.url}/v1/m1/b1/head`, { headers })).json()) as { digests: Record<string, string> };
  return spelt(Object.entries(head.digests));
}

it("a till in a browser, another one and the server come to the same rows", async () => {
  const [a, b] = [await enrol("web-a"), await enrol("web-b")];
  const terminal = shop.till("terminal");
  try {
    await terminal.said(/live/);
    expect(a.products().length).toBe(24);

    const sale = await a.commitSale({ lines: [{ productId: "SKU-00001", quantity: "2" }] });
    expect(sale.receiptNo).toBe("web-a-000001");
    expect(stock(a, "SKU-00001")).toBe("98");
    await eventually("b sees the sale of a", () => stock(b, "SKU-00001") === "98" || undefined);
    await eventually("nothing is pending", async () => (await a.drain(0)) === 0 || undefined);

    await b.setOnline(false);
    await eventually("b is offline", () => b.status.state.name === "offline" || undefined);
    await b.commitSale({ lines: [{ productId: "SKU-00001", quantity: "1.5" }] });
    expect([stock(b, "SKU-00001"), stock(a, "SKU-00001"), b.status.queueDepth]).toEqual(["96.5", "98", 1]);
    terminal.write("sell SKU-00001 3");
    await eventually("a sees the sale of the terminal", () => stock(a, "SKU-00001") === "95" || undefined);
    expect(stock(b, "SKU-00001")).toBe("96.5");

    await b.setOnline(true);
    await eventually("all have everything", () => (stock(a, "SKU-00001") === "93.5" && stock(b, "SKU-00001") === "93.5") || undefined);
    await eventually("b has no more to send", async () => (await b.drain(0)) === 0 || undefined);
    await eventually("both have the server's digests", async () => {
      const [ours, theirs, truth] = [await digests(a), await digests(b), await serverDigests(a)];
      return (ours === truth && theirs === truth) || undefined;
    });
    expect(a.status.digestMismatches + b.status.digestMismatches).toBe(0);
  } finally {
    await terminal.stop();
  }
});

it("opens again with what it had, also without a network, and sends what it sold meanwhile", async () => {
  const name = "web-again";
  const first = await enrol(name);
  await first.setOnline(false);
  await first.commitSale({ lines: [{ productId: "SKU-00002", quantity: "4" }] });
  await first.close();
  const second = await Client.open(name);
  open.push(second);
  expect([stock(second, "SKU-00002"), second.status.queueDepth, second.status.isOnline]).toEqual(["96", 1, false]);
  await second.setOnline(true);
  await eventually("it is sent", async () => (await second.drain(0)) === 0 || undefined);
  await eventually("it is live", () => second.status.state.name === "live" || undefined);
  expect(stock(second, "SKU-00002")).toBe("96");
});

it("a rejected operation is a dead letter that can be mended, and blocks nobody", async () => {
  const till = await enrol("web-mends");
  const price = { amount: 100, currency: "IDR" };
  await till.commitSale({ lines: [{ productId: "no-such-thing", quantity: "1", unitPrice: price }] });
  await till.commitSale({ lines: [{ productId: "SKU-00003", quantity: "1" }] });
  const letter = await eventually("it is rejected", async () => (await till.deadLetters())[0]);
  expect(letter.code).toBe("unknown_product");
  await eventually("the other one went through", async () => (await till.drain(0)) === 0 || undefined);
  if (!("lines" in letter.operation.kind)) throw new Error("it was a sale");
  const lines = letter.operation.kind.lines.map((line) => ({ ...line, product_id: "SKU-00003" }));
  await till.edit(letter, { ...letter.operation.kind, lines });
  await eventually("the corrected one went through", async () => (await till.drain(0)) === 0 || undefined);
  expect(await till.deadLetters()).toEqual([]);
  await eventually("both are in the stock", () => stock(till, "SKU-00003") === "98" || undefined);
});
