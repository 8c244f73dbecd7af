/** Figures as people write them. */

import { exponentOf, type Money } from "@mstore/client";

import { t, words } from "./words.svelte.js";

/** `Rp 12.500`: without decimals where there are none to show. */
export function shownMoney({ amount, currency }: Money): string {
  const unit = 10 ** (exponentOf(currency) ?? 2);
  const places = amount % unit === 0 ? 0 : (exponentOf(currency) ?? 2);
  const format = { style: "currency", currency, minimumFractionDigits: places, maximumFractionDigits: places, currencyDisplay: "narrowSymbol" } as const;
  return new Intl.NumberFormat(words.locale, format).format(amount / unit);
}

/** How long ago, in one figure. */
export function shownAge(ms: number): string {
  if (ms < 60_000) return t("seconds", { n: Math.floor(ms / 1000) });
  return ms < 3_600_000 ? t("minutes", { n: Math.floor(ms / 60_000) }) : t("hours", { n: Math.floor(ms / 3_600_000) });
}

/** The time of a receipt. */
export function shownTime(at: string): string {
  return new Intl.DateTimeFormat(words.locale, { dateStyle: "medium", timeStyle: "short" }).format(new Date(at));
}
