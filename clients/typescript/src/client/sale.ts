/** Receipts as an app gives them, completed from the local catalogue. */

import { type Money, times } from "../protocol/money.js";
import type { Receipt, Tender } from "../protocol/operation.js";
import { parseQuantity } from "../protocol/quantity.js";
import { timestampText } from "../protocol/timestamp.js";

/** One line of a receipt. What is left out is filled in: the local price; quantity × price, half a minor unit rounded up. */
export interface NewLine {
  readonly productId: string;
  /** A decimal string above 0. */
  readonly quantity: string;
  readonly unitPrice?: Money | undefined;
  readonly total?: Money | undefined;
}

/** A receipt to commit. */
export interface NewReceipt {
  readonly lines: readonly NewLine[];
  /** How it was paid; none: cash, exactly. */
  readonly tenders?: readonly Tender[] | undefined;
  /** The number printed; none: `{device}-{device_seq}`. */
  readonly receiptNo?: string | undefined;
  /** The day it is booked on; none: the UTC day of when it happened. */
  readonly businessDate?: string | undefined;
}

/** A receipt that cannot be completed. */
export class SaleError extends Error {}

/** Completes a receipt. */
export function complete(wanted: NewReceipt, defaultNo: string, at: number, priceOf: (id: string) => Money | undefined): Receipt {
  const lines = wanted.lines.map(({ productId, quantity, unitPrice, total }, n) => {
    const price = unitPrice ?? priceOf(productId);
    const milli = parseQuantity(quantity);
    if (price === undefined) throw new SaleError(`${productId} has no price here: give one`);
    if (milli === undefined) throw new SaleError(`${quantity} is not a quantity`);
    return { line_no: n + 1, product_id: productId, quantity, unit_price: price, total: total ?? times(price, milli) };
  });
  const first = lines[0];
  if (first === undefined) throw new SaleError("a receipt has at least one line");
  const total = { amount: lines.reduce((sum, line) => sum + line.total.amount, 0), currency: first.total.currency };
  return {
    lines,
    tenders: wanted.tenders ?? [{ type: "cash", amount: total }],
    total,
    receipt_no: wanted.receiptNo ?? defaultNo,
    business_date: wanted.businessDate ?? timestampText(at).slice(0, 10),
  };
}
