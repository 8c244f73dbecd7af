/** Chromium and a till in it: what the browser tests share. */

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { type BrowserContext, chromium, type Page } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Nothing of these leaves the machine: without them Chromium calls home at every start. */
const ARGUMENTS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

export interface Screen {
  readonly width: number;
  readonly height: number;
  readonly colorScheme?: "light" | "dark";
  readonly locale?: string;
}

/** A browser profile of its own, with a till in it. */
export class BrowserTill {
  /** What the console complained about. */
  readonly complaints: string[] = [];

  static async open(url: string, screen: Screen = { width: 1280, height: 800 }): Promise<BrowserTill> {
    if (!existsSync(CHROMIUM)) throw new Error(`${CHROMIUM} is not there: apt-get install chromium`);
    const profile = mkdtempSync(join(tmpdir(), "mstore-chromium-"));
    const { width, height, colorScheme = "light", locale = "en-GB" } = screen;
    const options = { executablePath: CHROMIUM, headless: true, args: ARGUMENTS, viewport: { width, height }, colorScheme, locale } as const;
    const context = await chromium.launchPersistentContext(profile, options);
    const till = new BrowserTill(context, context.pages()[0] ?? (await context.newPage()), profile);
    await till.page.goto(`${url}/till`);
    return till;
  }

  private constructor(
    readonly context: BrowserContext,
    readonly page: Page,
    private readonly profile: string,
  ) {
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") this.complaints.push(message.text());
    });
    page.on("pageerror", (error) => this.complaints.push(String(error)));
  }

  async enrol(code: string): Promise<void> {
    await this.page.getByLabel("Claim code").fill(code);
    await this.page.getByRole("button", { name: "Start selling" }).click();
    await this.is("live");
  }

  /** Waits until the state line says so. */
  async is(state: string): Promise<void> {
    await this.page.locator(`[role=status][data-state=${state}]`).waitFor();
  }

  async queueIs(depth: number): Promise<void> {
    await this.page.locator(`[role=status][data-queue="${depth}"]`).waitFor();
  }

  /** The text on the card of a product. */
  card(id: string) {
    return this.page.locator(`.product[data-id="${id}"]`);
  }

  async stockIs(id: string, stock: string): Promise<void> {
    await this.card(id).locator(".stock", { hasText: new RegExp(`^\\s*${stock.replace(".", "\\.")} left\\s*$`) }).waitFor();
  }

  /** Sells one of each, paid in cash; gives the receipt's number. */
  async sell(...ids: string[]): Promise<string> {
    for (const id of ids) await this.card(id).click();
    await this.page.getByRole("button", { name: "Pay", exact: true }).click();
    await this.page.getByRole("button", { name: "Complete sale" }).click();
    const number = (await this.page.locator("[data-receipt]").getAttribute("data-receipt")) ?? "";
    await this.page.getByRole("button", { name: "New sale" }).click();
    return number;
  }

  async switchNetwork(): Promise<void> {
    await this.page.getByRole("switch").click();
  }

  async view(name: "Sell" | "Receipts" | "Attention"): Promise<void> {
    await this.page.getByRole("navigation").getByRole("button", { name }).click();
  }

  async close(): Promise<void> {
    await this.context.close();
    rmSync(this.profile, { recursive: true, force: true });
  }
}
