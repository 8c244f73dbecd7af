/** What the device shows: the server's value and the effect of its own operations that the stream does not contain yet. */

import type { OperationKind, Receipt } from "../protocol/operation.js";
import { consumption, parseQuantity } from "../protocol/quantity.js";

/** What an operation does to one figure, in thousandths. */
export interface StockEffect {
  readonly collection: "product" | "inventory";
  readonly itemId: string;
  /** A count replaces; everything else adds. */
  readonly isBase: boolean;
  readonly milli: number;
}

/** A product's row as the device has it: its recipe, if it has one, is consumed too. */
export type ProductRow = (id: string) => string | undefined;

/** The effects of an operation. */
export function effectsOf(kind: OperationKind, product: ProductRow): StockEffect[] {
  if ("lines" in kind) return receiptEffects(kind, kind.type === "sale" ? -1 : 1, product);
  const milli = parseQuantity(kind.quantity) ?? 0;
  const target = { collection: kind.collection, itemId: kind.item_id };
  if (kind.type === "count") return [{ ...target, isBase: true, milli }];
  return [{ ...target, isBase: false, milli: kind.type === "transfer" ? -milli : milli }];
}

function receiptEffects(receipt: Receipt, sign: 1 | -1, product: ProductRow): StockEffect[] {
  return receipt.lines.flatMap((line) => {
    const moved = sign * (parseQuantity(line.quantity) ?? 0);
    const goods: StockEffect = { collection: "product", itemId: line.product_id, isBase: false, milli: moved };
    const ingredients = recipeOf(product(line.product_id)).map(
      // Rounded as the server rounds it, or the figure would jump by a thousandth when the sale comes back.
      ({ itemId, perUnit }): StockEffect => ({ collection: "inventory", itemId, isBase: false, milli: consumption(moved, perUnit) }),
    );
    return [goods, ...ingredients];
  });
}

/** `recipe: [{item_id, quantity}]` of a product's row; whatever cannot be read is left out, for the server's figure comes anyway. */
function recipeOf(row: string | undefined): { itemId: string; perUnit: number }[] {
  if (row === undefined || !row.includes('"recipe"')) return [];
  const { recipe } = JSON.parse(row) as { recipe?: unknown };
  if (!Array.isArray(recipe)) return [];
  return recipe.flatMap((line: unknown) => {
    const { item_id: itemId, quantity } = (line ?? {}) as { item_id?: unknown; quantity?: unknown };
    const perUnit = parseQuantity(quantity);
    return typeof itemId === "string" && perUnit !== undefined ? [{ itemId, perUnit }] : [];
  });
}

/** The figure shown: the server's, then the pending effects in the order of their `device_seq`. */
export function shownFigure(server: number, pending: readonly { readonly isBase: boolean; readonly milli: number }[]): number {
  return pending.reduce((value, effect) => (effect.isBase ? effect.milli : value + effect.milli), server);
}
