/** The client as the page sees it: what it tells becomes state that redraws itself. */

import { Client, ClientError, type JournalEntry, type NewReceipt, type Product, type Status } from "@mstore/client";

/** One device per browser profile and server. */
const DATABASE = "mstore-till";
/** Ages on the screen are this true. */
const TICK_MS = 1_000;
const RECEIPTS_MAX = 200;
const VERSION = "web-till 0.1.0";

/** One line of the sale that is being made. */
export interface CartLine {
  readonly product: Product;
  quantity: number;
}

class Till {
  client = $state.raw<Client>();
  /** Whether it is known yet if a device is enrolled here. */
  isOpened = $state(false);
  status = $state.raw<Status>();
  products = $state.raw<Product[]>([]);
  receipts = $state.raw<JournalEntry[]>([]);
  letters = $state.raw<JournalEntry[]>([]);
  cart = $state<CartLine[]>([]);
  now = $state(Date.now());

  constructor() {
    setInterval(() => (this.now = Date.now()), TICK_MS);
  }

  async open(): Promise<void> {
    try {
      this.#use(await Client.open(DATABASE, { clientVersion: VERSION }));
    } catch (error) {
      if (!(error instanceof ClientError) || error.code !== "not_enrolled") throw error;
    } finally {
      this.isOpened = true;
    }
  }

  async enrol(code: string): Promise<void> {
    // Otherwise a browser that is short of room may throw sales away; it may refuse, and then it may.
    void navigator.storage?.persist?.();
    this.#use(await Client.enrol(DATABASE, location.origin, code, { clientVersion: VERSION }));
  }

  #use(client: Client): void {
    this.client = client;
    client.on("status", () => (this.status = client.status));
    client.on("change", () => void this.#read(client));
    this.status = client.status;
    void this.#read(client);
  }

  async #read(client: Client): Promise<void> {
    this.products = client.products().filter(({ isActive }) => isActive);
    [this.receipts, this.letters] = [await client.recent(RECEIPTS_MAX), await client.deadLetters()];
  }

  add(product: Product): void {
    const held = this.cart.find((line) => line.product.id === product.id);
    if (held === undefined) this.cart.push({ product, quantity: 1 });
    else held.quantity += 1;
  }

  change(id: string, by: number): void {
    const held = this.cart.find((line) => line.product.id === id);
    if (held === undefined) return;
    held.quantity += by;
    if (held.quantity <= 0) this.remove(id);
  }

  remove(id: string): void {
    this.cart = this.cart.filter((line) => line.product.id !== id);
  }

  /** What the sale comes to; nothing while there is nothing to pay. */
  get total(): { amount: number; currency: string } | undefined {
    const currency = this.cart[0]?.product.price?.currency;
    if (currency === undefined) return undefined;
    return { amount: this.cart.reduce((sum, { product, quantity }) => sum + (product.price?.amount ?? 0) * quantity, 0), currency };
  }

  async sell(tenders: NewReceipt["tenders"]): Promise<string> {
    if (this.client === undefined) throw new Error("no till is open");
    const lines = this.cart.map(({ product, quantity }) => ({ productId: product.id, quantity: String(quantity), unitPrice: product.price }));
    const { receiptNo } = await this.client.commitSale({ lines, tenders });
    this.cart = [];
    return receiptNo ?? "";
  }

  async forget(): Promise<void> {
    await this.client?.wipe();
    location.reload();
  }
}

export const till = new Till();
