/** What the app reads: products and inventory in memory, with the effect of the device's own pending operations in them. */

import type { Money } from "../protocol/money.js";
import { parseQuantity, quantityText } from "../protocol/quantity.js";
import { shownFigure } from "../store/effects.js";
import type { Journal } from "../store/journal.js";
import type { HeldEffect, HeldRow } from "../store/schema.js";
import type { Store } from "../store/store.js";

/** More touched rows than this are read with all the others. */
const TOUCHED_MAX = 500;

/** A product of the branch. */
export interface Product {
  readonly id: string;
  readonly sku: string;
  readonly barcode: string | undefined;
  readonly name: string;
  readonly category: string | undefined;
  readonly unit: string;
  /** The price at this branch. */
  readonly price: Money | undefined;
  /** The stock to show: the server's figure and the effect of own operations that are not in it yet. */
  readonly stock: string;
  readonly serverStock: string;
  readonly trackStock: boolean;
  /** Whether it is sold. */
  readonly isActive: boolean;
}

/** Something held and counted at the branch. */
export interface InventoryItem {
  readonly id: string;
  readonly name: string;
  readonly unit: string;
  readonly quantity: string;
  readonly serverQuantity: string;
}

interface Fields {
  readonly [name: string]: unknown;
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function priceOf(value: unknown): Money | undefined {
  const { amount, currency } = (value ?? {}) as Partial<Money>;
  return typeof amount === "number" && typeof currency === "string" ? { amount, currency } : undefined;
}

/** Rows of one kind by id, and the figure of each that pending operations move. */
class Shelf {
  readonly rows = new Map<string, { readonly row: HeldRow; readonly fields: Fields }>();

  constructor(readonly collection: "product" | "inventory") {}

  put(row: HeldRow): void {
    this.rows.set(row.id, { row, fields: JSON.parse(row.body) as Fields });
  }
}

/** The branch as the app sees it. */
export class Catalogue {
  readonly #products = new Shelf("product");
  readonly #inventory = new Shelf("inventory");
  #effects = new Map<string, HeldEffect[]>();

  constructor(
    private readonly store: Store,
    private readonly journal: Journal,
  ) {}

  /** Reads everything. */
  async load(): Promise<void> {
    for (const shelf of [this.#products, this.#inventory]) {
      const rows = await this.store.rows(shelf.collection);
      shelf.rows.clear();
      for (const row of rows) shelf.put(row);
    }
    await this.loadEffects();
  }

  /** Reads what became visible. */
  async refresh(touched: ReadonlyMap<string, readonly string[]>): Promise<void> {
    if ([...touched.values()].some((ids) => ids.length > TOUCHED_MAX)) return this.load();
    for (const shelf of [this.#products, this.#inventory]) {
      const ids = touched.get(shelf.collection) ?? [];
      const rows = await this.store.rowsOf(shelf.collection, ids);
      for (const id of ids) {
        const row = rows.get(id);
        if (row === undefined) shelf.rows.delete(id);
        else shelf.put(row);
      }
    }
    await this.loadEffects();
  }

  /** Reads what own pending operations do. */
  async loadEffects(): Promise<void> {
    const effects = new Map<string, HeldEffect[]>();
    for (const effect of await this.journal.effects()) {
      const key = `${effect.collection}\0${effect.itemId}`;
      effects.set(key, [...(effects.get(key) ?? []), effect]);
    }
    this.#effects = effects;
  }

  #figure(collection: string, id: string, server: number): string {
    return quantityText(shownFigure(server, this.#effects.get(`${collection}\0${id}`) ?? []));
  }

  /** The row of a product as the server sent it. */
  productRow(id: string): string | undefined {
    return this.#products.rows.get(id)?.row.body;
  }

  product(id: string): Product | undefined {
    const fields = this.#products.rows.get(id)?.fields;
    if (fields === undefined) return undefined;
    const server = parseQuantity(fields.stock) ?? 0;
    return {
      id,
      sku: textOf(fields.sku),
      barcode: typeof fields.barcode === "string" ? fields.barcode : undefined,
      name: textOf(fields.name),
      category: typeof fields.category === "string" ? fields.category : undefined,
      unit: textOf(fields.unit),
      price: priceOf(fields.price),
      stock: this.#figure("product", id, server),
      serverStock: quantityText(server),
      trackStock: fields.track_stock === true,
      isActive: fields.is_active === true,
    };
  }

  /** All products, by id. */
  products(): Product[] {
    return [...this.#products.rows.keys()].sort().flatMap((id) => this.product(id) ?? []);
  }

  /** All inventory items, by id. */
  inventory(): InventoryItem[] {
    return [...this.#inventory.rows.values()].map(({ row: { id }, fields }) => {
      const server = parseQuantity(fields.quantity) ?? 0;
      const quantity = this.#figure("inventory", id, server);
      return { id, name: textOf(fields.name), unit: textOf(fields.unit), quantity, serverQuantity: quantityText(server) };
    });
  }
}
