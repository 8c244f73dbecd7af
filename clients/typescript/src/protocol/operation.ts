/** Operations: what a device did (§4.6 of the contract), checked for everything that needs no database. */

import { canonicalise } from "./canonical.js";
import { JsonError, type JsonObject, readJson } from "./json.js";
import { RECEIPT_LINES_MAX, RECEIPT_TENDERS_MAX, TEXT_BYTES_MAX, byteLength } from "./limits.js";
import { currency, type Money, money } from "./money.js";
import { scopeName } from "./names.js";
import { parseQuantity } from "./quantity.js";
import { isRowId } from "./row.js";
import { list, maybe, member, natural, object, parsed, type Reads, ShapeError, text, word } from "./shape.js";
import { parseDay, timestamp, timestampText } from "./timestamp.js";

/** One line of a receipt. */
export interface ReceiptLine {
  readonly line_no: number;
  readonly product_id: string;
  /** Above 0, also on a return. */
  readonly quantity: string;
  readonly unit_price: Money;
  readonly total: Money;
}

/** One payment. `type` is `cash`, `card`, `qris`, … and never a card number. */
export interface Tender {
  readonly type: string;
  readonly amount: Money;
}

/** A sale or a return. */
export interface Receipt {
  readonly lines: readonly ReceiptLine[];
  readonly tenders: readonly Tender[];
  readonly total: Money;
  readonly receipt_no: string;
  readonly business_date: string;
}

/** A receipt of goods, a correction or a count of one item. */
export interface StockAct {
  readonly collection: "product" | "inventory";
  readonly item_id: string;
  readonly quantity: string;
  readonly reason: string;
}

/** What was done, in the words of the wire. */
export type OperationKind =
  | ({ readonly type: "sale" | "return" } & Receipt)
  | ({ readonly type: "receive" | "adjust" | "count" } & StockAct)
  | ({ readonly type: "transfer"; readonly to_branch: string } & StockAct);

/** One thing that a device did. */
export interface Operation {
  readonly id: string;
  readonly device_seq: number;
  readonly occurred_at: string;
  readonly replaces?: string | undefined;
  readonly kind: OperationKind;
}

/** Why an operation cannot be accepted whatever the database says. */
export class OperationError extends Error {
  constructor(
    /** The verdict's code. */
    readonly code: string,
    detail: string,
  ) {
    super(detail);
    this.name = "OperationError";
  }
}

/** A UUIDv7 in lower case. */
export function parseOperationId(raw: string): string | undefined {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/.test(raw) ? raw : undefined;
}

export const operationId: Reads<string> = parsed("a UUIDv7 in lower case", parseOperationId);

/** A UUIDv7 of a time and ten random bytes (RFC 9562 §5.7). */
export function operationIdOf(ms: number, random: Uint8Array): string {
  const bytes = random.slice(0, 10);
  bytes[0] = (bytes[0]! & 0x0f) | 0x70;
  bytes[2] = (bytes[2]! & 0x3f) | 0x80;
  const tail = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const hex = Math.max(0, ms).toString(16).padStart(12, "0") + tail;
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

function refuse(code: string, detail: string): never {
  throw new OperationError(code, detail);
}

const quantity: Reads<string> = (value, field) => {
  if (typeof value === "string" && parseQuantity(value) !== undefined) return value;
  return refuse("malformed_quantity", `${field} is not a quantity: a decimal string with up to 3 places, no trailing zeros`);
};

/** A currency that is none has a code of its own. */
const checkedMoney: Reads<Money> = (value, field) => {
  const code = object(value, field).get("currency");
  try {
    currency(code, field);
  } catch (error) {
    if (typeof code === "string") refuse("unknown_currency", error instanceof Error ? error.message : field);
  }
  return money(value, field);
};

const line: Reads<ReceiptLine> = (value, field) => {
  const from = object(value, field);
  return {
    line_no: member(from, "line_no", natural),
    product_id: member(from, "product_id", text),
    quantity: member(from, "quantity", quantity),
    unit_price: member(from, "unit_price", checkedMoney),
    total: member(from, "total", checkedMoney),
  };
};

const tender: Reads<Tender> = (value, field) => {
  const from = object(value, field);
  return { type: member(from, "type", text), amount: member(from, "amount", checkedMoney) };
};

function receipt(from: JsonObject): Receipt {
  return {
    lines: member(from, "lines", list(line)),
    tenders: member(from, "tenders", list(tender)),
    total: member(from, "total", checkedMoney),
    receipt_no: member(from, "receipt_no", text),
    business_date: member(from, "business_date", parsed("a day that exists", parseDay)),
  };
}

function stockAct(from: JsonObject): StockAct {
  return {
    collection: member(from, "collection", word("product", "inventory")),
    item_id: member(from, "item_id", text),
    quantity: member(from, "quantity", quantity),
    reason: member(from, "reason", text),
  };
}

function kindOf(from: JsonObject): OperationKind {
  const type = member(from, "type", text);
  switch (type) {
    case "sale":
    case "return":
      return { type, ...receipt(from) };
    case "receive":
    case "adjust":
    case "count":
      return { type, ...stockAct(from) };
    case "transfer":
      return { type, ...stockAct(from), to_branch: member(from, "to_branch", scopeName) };
    default:
      return refuse("unknown_operation_type", `${type} is not a type of operation`);
  }
}

/** Parses one operation of an upload and checks it; gives its canonical text too. */
export function parseOperation(raw: string): { operation: Operation; canonical: string } {
  const canonical = canonicalOperation(raw);
  try {
    const from = object(readJson(canonical), "");
    const operation: Operation = {
      id: member(from, "id", operationId),
      device_seq: member(from, "device_seq", natural),
      occurred_at: timestampText(member(from, "occurred_at", timestamp)),
      replaces: member(from, "replaces", maybe(operationId)),
      kind: kindOf(from),
    };
    check(operation);
    return { operation, canonical };
  } catch (error) {
    throw error instanceof ShapeError ? new OperationError("malformed_operation", error.message) : error;
  }
}

function canonicalOperation(raw: string): string {
  try {
    return canonicalise(raw);
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    const codes = { float: "float_refused", integer: "integer_out_of_range", large: "operation_too_large", deep: "operation_too_large" };
    const code = error.reason === "syntax" || error.reason === "duplicate_key" ? "malformed_operation" : codes[error.reason];
    throw new OperationError(code, error.message);
  }
}

/** The text to send, checked. */
export function operationText(operation: Operation): string {
  const { id, device_seq, occurred_at, replaces, kind } = operation;
  const { canonical } = parseOperation(JSON.stringify({ id, device_seq, occurred_at, replaces, ...kind }));
  return canonical;
}

function check(operation: Operation): void {
  if (operation.device_seq === 0) refuse("malformed_operation", "device_seq starts at 1");
  const { kind } = operation;
  if ("lines" in kind) return checkReceipt(kind);
  checkId("item_id", kind.item_id);
  checkText("reason", kind.reason);
  const milli = parseQuantity(kind.quantity) ?? 0;
  const fits = { receive: milli > 0, adjust: milli !== 0, count: milli >= 0, transfer: milli > 0 }[kind.type];
  if (!fits) refuse("negative_quantity", `quantity ${kind.quantity}: the sign does not fit a ${kind.type}`);
}

function checkReceipt(of: Receipt): void {
  if (of.lines.length < 1 || of.lines.length > RECEIPT_LINES_MAX) {
    refuse("malformed_operation", `${of.lines.length} lines; 1 to ${RECEIPT_LINES_MAX} are allowed`);
  }
  if (of.tenders.length > RECEIPT_TENDERS_MAX) refuse("malformed_operation", `${of.tenders.length} tenders; at most ${RECEIPT_TENDERS_MAX}`);
  checkText("receipt_no", of.receipt_no);
  const unit = of.total.currency;
  const numbers = new Set<number>();
  let sum = 0n;
  for (const item of of.lines) {
    checkId("product_id", item.product_id);
    if ((parseQuantity(item.quantity) ?? 0) <= 0) refuse("negative_quantity", `line ${item.line_no}: quantity ${item.quantity} must be above 0`);
    if (numbers.has(item.line_no)) refuse("malformed_operation", `line_no ${item.line_no} stands twice`);
    numbers.add(item.line_no);
    if (item.unit_price.currency !== unit || item.total.currency !== unit) {
      refuse("currency_differs", `line ${item.line_no}: its currency differs from the total's ${unit}`);
    }
    sum += BigInt(item.total.amount);
  }
  const other = of.tenders.find((paid) => paid.amount.currency !== unit);
  if (other !== undefined) refuse("currency_differs", `tender ${other.type}: ${other.amount.currency} instead of ${unit}`);
  if (sum !== BigInt(of.total.amount)) refuse("total_differs", `the lines add up to ${sum}, the total says ${of.total.amount}`);
  for (const paid of of.tenders) checkText("tender type", paid.type);
}

function checkId(name: string, id: string): void {
  if (!isRowId(id)) refuse("malformed_operation", `${name} takes 1 to 128 bytes without U+0000`);
}

function checkText(name: string, of: string): void {
  const fits = byteLength(of) <= TEXT_BYTES_MAX && !of.includes("\0");
  if (!fits) refuse("malformed_operation", `${name} takes at most ${TEXT_BYTES_MAX} bytes without U+0000`);
}
