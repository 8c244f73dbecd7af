/** The web till in Chromium, at a real server: two browsers and a terminal come to the same figures, with and without a network. */

import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";

import { BrowserTill, type Screen } from "./browser.js";
import { eventually, Shop } from "./shop.js";

let shop: Shop;
const open: BrowserTill[] = [];

beforeAll(async () => {
  shop = await Shop.open();
});

afterEach(async () => {
  for (const till of open.splice(0)) {
    expect(till.complaints, "the console is silent").toEqual([]);
    await till.close();
  }
});

afterAll(() => shop?.close());

async function enrolled(id: string, screen?: Screen): Promise<BrowserTill> {
  const till = await BrowserTill.open(shop.url, screen);
  open.push(till);
  await till.enrol(shop.claim(id));
  return till;
}

/** For people to look at; `SCREENSHOTS` names a directory. */
async function picture(till: BrowserTill, name: string): Promise<void> {
  const directory = process.env.SCREENSHOTS;
  if (directory === undefined) return;
  mkdirSync(directory, { recursive: true });
  await till.page.screenshot({ path: fileURLToPath(new URL(`file://${directory}/${name}.png`)) });
}

it("two browsers and a terminal end equal", async () => {
  const [a, b] = [await enrolled("browser-a"), await enrolled("browser-b")];
  const terminal = shop.till("terminal-1");
  try {
    await terminal.said(/live/);
    expect(await a.sell("SKU-00001", "SKU-00001", "SKU-00002")).toBe("browser-a-000001");
    await b.stockIs("SKU-00001", "98");
    await b.stockIs("SKU-00002", "99");
    terminal.write("sell SKU-00001 5");
    await a.stockIs("SKU-00001", "93");
    await b.sell("SKU-00001");
    await a.stockIs("SKU-00001", "92");
    await picture(a, "sell-light");
    await eventually("the terminal has it too", async () => {
      const from = terminal.lines.length;
      terminal.write("show SKU-00001");
      const [, stock] = await terminal.said(/SKU-00001\s+([\d.]+)/, from);
      return stock === "92" || undefined;
    });
    await a.view("Receipts");
    await a.page.locator(".receipt[data-state=accepted]").waitFor();
    await picture(a, "receipts-light");
  } finally {
    await terminal.stop();
  }
});

it("sells while switched off, is opened again without a server to load from, and comes back", async () => {
  const [a, b] = [await enrolled("browser-c"), await enrolled("browser-d")];
  // The page is kept for later only once its worker is there.
  await a.page.evaluate(async () => void (await navigator.serviceWorker.ready));
  await a.switchNetwork();
  await a.is("offline");
  await a.sell("SKU-00003");
  await a.queueIs(1);
  await a.stockIs("SKU-00003", "99");
  await b.stockIs("SKU-00003", "100");

  await a.context.setOffline(true);
  await a.page.reload();
  await a.queueIs(1);
  await a.stockIs("SKU-00003", "99");
  await a.sell("SKU-00003");
  await a.queueIs(2);
  await picture(a, "offline-light");

  await a.context.setOffline(false);
  await a.switchNetwork();
  await a.is("live");
  await a.queueIs(0);
  await b.stockIs("SKU-00003", "98");
  await a.stockIs("SKU-00003", "98");
  // Connections that were refused while it was cut off are the browser's own complaint.
  a.complaints.splice(0, a.complaints.length, ...a.complaints.filter((text) => !/ERR_INTERNET_DISCONNECTED/.test(text)));
});

it("a second tab of the same till sells too, and does not fight the first", async () => {
  const a = await enrolled("browser-e");
  const second = await a.context.newPage();
  await second.goto(`${shop.url}/till/`);
  await second.locator("[role=status][data-state=live]").waitFor();
  await second.locator('.product[data-id="SKU-00004"]').click();
  await second.getByRole("button", { name: "Pay", exact: true }).click();
  await second.getByRole("button", { name: "Complete sale" }).click();
  await second.locator("[data-receipt]").waitFor();
  await a.stockIs("SKU-00004", "99");
  await a.queueIs(0);
  await a.is("live");
  await second.close();
});

it("a rejected sale is shown with its reason and corrected", async () => {
  const a = await enrolled("browser-f");
  await a.switchNetwork();
  await a.is("offline");
  await a.sell("SKU-00024");
  await shop.admin("DELETE", "/merchants/m1/products/SKU-00024");
  await a.switchNetwork();
  await a.page.locator(".badge").waitFor();
  await a.view("Attention");
  await a.page.getByText("The server does not know this product").waitFor();
  await picture(a, "attention-light");
  await a.page.getByRole("button", { name: "Correct" }).click();
  await a.page.getByLabel("Product").selectOption({ index: 1 });
  await a.page.getByRole("dialog").getByRole("button", { name: "Send again" }).click();
  await a.page.getByText("Nothing needs you").waitFor();
  await a.queueIs(0);
});

it("is worked with the keyboard alone, and speaks Indonesian in the dark", async () => {
  const a = await enrolled("browser-g", { width: 1280, height: 800, colorScheme: "dark" });
  const { keyboard } = a.page;
  await keyboard.press("/");
  await keyboard.type("SKU-00005");
  await keyboard.press("Enter");
  await a.page.locator(".cart li").waitFor();
  const pay = a.page.getByRole("button", { name: "Pay", exact: true });
  for (let n = 0; n < 60 && !(await pay.evaluate((button) => button === document.activeElement)); n += 1) await keyboard.press("Tab");
  await keyboard.press("Enter");
  const confirm = a.page.getByRole("button", { name: "Complete sale" });
  await confirm.waitFor();
  await picture(a, "pay-dark");
  for (let n = 0; n < 20 && !(await confirm.evaluate((button) => button === document.activeElement)); n += 1) await keyboard.press("Tab");
  await keyboard.press("Enter");
  await a.page.locator("[data-receipt]").waitFor();
  await picture(a, "done-dark");
  await keyboard.press("Enter");
  await a.stockIs("SKU-00005", "99");
  await a.page.getByRole("button", { name: "Settings" }).click();
  await a.page.getByRole("button", { name: "Bahasa Indonesia" }).click();
  await a.page.getByRole("button", { name: "Tutup" }).click();
  await a.page.getByRole("navigation").getByRole("button", { name: "Jual" }).waitFor();
  await picture(a, "sell-dark-id");
});

it("fits a phone", async () => {
  const fresh = await BrowserTill.open(shop.url, { width: 390, height: 844 });
  open.push(fresh);
  await fresh.page.getByLabel("Claim code").waitFor();
  await picture(fresh, "enrol-phone");
  await fresh.enrol(shop.claim("browser-h"));
  await fresh.card("SKU-00006").click();
  await picture(fresh, "sell-phone");
  const [inner, outer] = await fresh.page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth] as const);
  expect(inner, "nothing is cut off at the side").toBeLessThanOrEqual(outer);
});
