/**
 * A till's synced copy of its branch in a browser, and a journal whose operations reach the server exactly once.
 *
 * ```ts
 * const till = await Client.enrol("till", location.origin, "7G2K-9QXM-31TB");
 * till.on("change", () => show(till.products()));
 * const sale = await till.commitSale({ lines: [{ productId: "SKU-00042", quantity: "2" }] });
 * print(sale.receiptNo); // on disk by now
 * ```
 */

export type { InventoryItem, Product } from "./client/catalogue.js";
export { Client, ClientError, type Committed, type JournalEntry, type Options } from "./client/client.js";
export { type ClaimLink, parseClaimLink } from "./protocol/claim_link.js";
export { CallError } from "./client/http.js";
export { type NewLine, type NewReceipt, SaleError } from "./client/sale.js";
export { type Status, staleness } from "./client/status.js";
export type { Enrolment } from "./protocol/enrolment.js";
export { exponentOf, type Money, moneyText, times } from "./protocol/money.js";
export type { Operation, OperationKind, Receipt, ReceiptLine, StockAct, Tender } from "./protocol/operation.js";
export { parseQuantity, quantityText } from "./protocol/quantity.js";
export type { DeviceState } from "./protocol/report.js";
