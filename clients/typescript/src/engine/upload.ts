/** The upload queue's decisions: one upload at a time, one bad operation never blocks the others, nothing is ever dropped in silence. */

import { OPERATIONS_PER_UPLOAD_MAX } from "../protocol/limits.js";
import { parseOperationId } from "../protocol/operation.js";
import type { Verdict } from "../protocol/upload.js";
import { Backoff, type Dice } from "./backoff.js";
import type { Effect } from "./effect.js";
import type { QueuedOperation, UploadOutcome } from "./input.js";

const RETRY_BASE_MS = 500;
const RETRY_CAP_MS = 60_000;
/** A refused login or right is tried again this seldom. */
const REFUSED_BASE_MS = 10_000;
const REFUSED_CAP_MS = 300_000;

/** Operations without a verdict and what is known of the way to the server. */
export class UploadQueue {
  #waiting: QueuedOperation[];
  #inFlight: QueuedOperation[] | undefined;
  /** Operations per upload now; halved when the way refuses a whole upload. */
  #limit = OPERATIONS_PER_UPLOAD_MAX;
  #retryAt: number | undefined;
  readonly #retry = new Backoff(RETRY_BASE_MS, RETRY_CAP_MS);
  readonly #refused = new Backoff(REFUSED_BASE_MS, REFUSED_CAP_MS);
  /** Uploads that got an answer, ever. */
  #answered = 0;
  /** Operations refused when sent alone, with `answered` at that time. */
  readonly #suspects = new Map<string, number>();
  /** Set while credentials or rights are refused. */
  blocked: string | undefined;
  /** The highest number that a verdict has given: a server whose head is below it has lost that commit since. */
  promised: number | undefined;

  constructor(queue: readonly QueuedOperation[]) {
    this.#waiting = [...queue];
  }

  #held(): QueuedOperation[] {
    return [...this.#waiting, ...(this.#inFlight ?? [])];
  }

  get depth(): number {
    return this.#waiting.length + (this.#inFlight?.length ?? 0);
  }

  get oldest(): number | undefined {
    return this.#held().reduce<number | undefined>((oldest, { at }) => (oldest === undefined || at < oldest ? at : oldest), undefined);
  }

  /** Every waiting operation was refused alone and nothing got through since: it is the way, not the operations. */
  get pathRefuses(): boolean {
    const refusedLately = ({ id }: QueuedOperation): boolean => this.#suspects.get(id) === this.#answered;
    return this.#waiting.length > 0 && this.#inFlight === undefined && this.#waiting.every(refusedLately);
  }

  /** Operations that wait, of which some may be waiting already. */
  add(operations: readonly QueuedOperation[]): void {
    const known = new Set(this.#held().map(({ id }) => id));
    this.#waiting.push(...operations.filter(({ id }) => !known.has(id)));
  }

  /** Accepted operations are handed in again: what their verdicts said counts no more. */
  forgetPromises(): void {
    this.promised = undefined;
  }

  /** The network is said to be back: no reason to wait. */
  hurry(): void {
    this.#retryAt = undefined;
    this.#retry.reset();
  }

  get deadline(): number | undefined {
    return this.#inFlight === undefined && this.#waiting.length > 0 ? (this.#retryAt ?? 0) : undefined;
  }

  /** The next upload, if its time has come. */
  start(now: number): Effect | undefined {
    const due = this.deadline;
    if (due === undefined || due > now) return undefined;
    const isAlone = this.#suspects.has(this.#waiting[0]!.id);
    let count = isAlone ? 1 : 0;
    while (!isAlone && count < Math.min(this.#limit, this.#waiting.length) && !this.#suspects.has(this.#waiting[count]!.id)) count += 1;
    this.#inFlight = this.#waiting.splice(0, count);
    this.#retryAt = undefined;
    return { do: "upload", ids: this.#inFlight.map(({ id }) => id) };
  }

  /** What became of it; the effect to write down, if any. */
  ended(now: number, dice: Dice, outcome: UploadOutcome): Effect | undefined {
    const batch = this.#inFlight;
    if (batch === undefined) throw new Error("an upload ended that was not begun");
    this.#inFlight = undefined;
    switch (outcome.is) {
      case "answered":
        return this.#judged(now, dice, batch, outcome.verdicts);
      case "rejected":
        return this.#rejected(now, dice, batch, outcome.code);
      case "refused":
        this.blocked = outcome.code;
        this.#retryAt = now + this.#refused.nextMs(dice);
        break;
      case "failed":
        this.#retryAt = now + this.#retry.nextMs(dice, outcome.fault.retryAfterMs);
        break;
    }
    this.#waiting.unshift(...batch);
    return undefined;
  }

  #judged(now: number, dice: Dice, batch: QueuedOperation[], answer: readonly Verdict[]): Effect | undefined {
    this.blocked = undefined;
    this.#refused.reset();
    const verdicts = matched(batch, answer);
    const known = batch.filter(({ id }) => verdicts.has(id));
    const forgotten = batch.filter(({ id }) => !verdicts.has(id));
    if (forgotten.length === 0) {
      this.#retry.reset();
    } else {
      // A server that answers for some only: the others go again, later and alone.
      this.#retryAt = now + this.#retry.nextMs(dice);
    }
    const before = this.#answered;
    for (const { id } of known) this.#suspects.delete(id);
    if (known.length > 0) {
      this.#answered += 1;
      this.#limit = Math.min(this.#limit * 2, OPERATIONS_PER_UPLOAD_MAX);
    }
    for (const operation of forgotten) {
      const verdict = this.#suspect(operation, before, "no_verdict");
      if (verdict !== undefined) verdicts.set(operation.id, verdict);
    }
    for (const { seq } of verdicts.values()) {
      if (seq !== undefined && (this.promised === undefined || seq > this.promised)) this.promised = seq;
    }
    if (verdicts.size === 0) return undefined;
    const inOrder = [...verdicts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, verdict]) => verdict);
    return { do: "settle", verdicts: inOrder };
  }

  /** Halve; a lone operation waits at the end of the queue until another has got through, and is given up only then. */
  #rejected(now: number, dice: Dice, batch: QueuedOperation[], code: string): Effect | undefined {
    if (batch.length > 1) {
      this.#limit = Math.floor(batch.length / 2);
      this.#waiting.unshift(...batch);
      return undefined;
    }
    const verdict = this.#suspect(batch[0]!, this.#answered, code);
    if (verdict !== undefined) return { do: "settle", verdicts: [verdict] };
    if (this.pathRefuses) this.#retryAt = now + this.#retry.nextMs(dice);
    return undefined;
  }

  /** It got nowhere when `answered` uploads had an answer: it waits at the end, and is given up if others got through since the time before. */
  #suspect(operation: QueuedOperation, answered: number, code: string): Verdict | undefined {
    const before = this.#suspects.get(operation.id);
    this.#suspects.set(operation.id, answered);
    if (before !== undefined && before < this.#answered) {
      this.#suspects.delete(operation.id);
      return givenUp(operation.id, code);
    }
    this.#waiting.push(operation);
    return undefined;
  }
}

/**
 * The verdicts by operation. A rejection that names no operation of the upload belongs to the operation in its place, if there are as many of
 * both; nothing is believed to be accepted that the answer does not name.
 */
function matched(batch: readonly QueuedOperation[], verdicts: readonly Verdict[]): Map<string, Verdict> {
  const own = new Set(batch.map(({ id }) => id));
  const isNamed = (verdict: Verdict): boolean => parseOperationId(verdict.id) !== undefined && own.has(verdict.id);
  const byId = new Map<string, Verdict>();
  for (const verdict of verdicts) if (isNamed(verdict)) byId.set(verdict.id, verdict);
  if (verdicts.length !== batch.length) return byId;
  batch.forEach(({ id }, n) => {
    const verdict = verdicts[n]!;
    if (!isNamed(verdict) && verdict.status === "rejected" && !byId.has(id)) byId.set(id, { ...verdict, id });
  });
  return byId;
}

function givenUp(id: string, code: string): Verdict {
  const detail =
    code === "no_verdict"
      ? "the server answered without a verdict for it whenever it was sent, while others got theirs"
      : "refused on its way whenever it was sent, while others got through";
  return { id, status: "rejected", seq: undefined, code, detail };
}
