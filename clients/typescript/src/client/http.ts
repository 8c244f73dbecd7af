/** The HTTP calls of a device, and what each answer means for the engine. */

import type { Ask } from "../engine/effect.js";
import { type CatchUpOutcome, type Fault, NO_NETWORK, NO_USE, type UploadOutcome } from "../engine/input.js";
import { type Cursor, cursorText, hex16 } from "../protocol/cursor.js";
import { type Digest, EMPTY_DIGEST, rowHash, SUB_DIGESTS } from "../protocol/digest.js";
import { type LocalDecision, type OperationDecision, parseDeadLetterAnswer } from "../protocol/dead_letter.js";
import { type Enrolment, parseEnrolment } from "../protocol/enrolment.js";
import { digest, type Head, parseHead } from "../protocol/head.js";
import { JsonObject } from "../protocol/json.js";
import { parseProblem, type Problem } from "../protocol/problem.js";
import { parseRow } from "../protocol/row.js";
import { list, member, natural, object, readText, type Reads, ShapeError } from "../protocol/shape.js";
import { parseUploadAnswer } from "../protocol/upload.js";
import type { HeldRow } from "../store/schema.js";
import type { Staged } from "../store/staged.js";

/** Nothing came for so long: the call has failed. */
const SILENCE_MAX_MS = 20_000;

/** A call did not bring an answer that can be used. No status: nothing came, or it broke off. */
export class CallError extends Error {
  constructor(
    detail: string,
    readonly status?: number,
    readonly problem?: Problem,
    readonly retryAfterMs?: number,
  ) {
    super(detail);
    this.name = "CallError";
  }

  /** As trouble that may pass. */
  get fault(): Fault {
    return this.status === undefined ? NO_NETWORK : { retryAfterMs: this.retryAfterMs, reached: true };
  }
}

/** What went wrong, whatever was thrown. */
export function faultOf(error: unknown): Fault {
  return error instanceof CallError ? error.fault : NO_NETWORK;
}

/** Redeems a claim code. */
export async function enrol(server: string, code: string, nonce: string): Promise<Enrolment> {
  const call = new Call(() => true);
  const response = await call.send(`${server}/v1/devices/enrol`, { method: "POST", body: JSON.stringify({ code, nonce }), headers: JSON_BODY });
  return parseEnrolment(await call.text(response));
}

const JSON_BODY = { "content-type": "application/json" };

/** One request and its answer, ended by silence or by a network that is switched off. */
class Call {
  readonly #controller = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly isOnline: () => boolean) {}

  abort(): void {
    clearTimeout(this.#timer);
    this.#controller.abort();
  }

  /** Something came: wait again. */
  heard(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#controller.abort(), SILENCE_MAX_MS);
  }

  async send(url: string, init: RequestInit): Promise<Response> {
    if (!this.isOnline()) throw new CallError("the network is switched off");
    this.heard();
    try {
      // A redirect could lead a token to where it may not go, and a cache has no business here.
      return await fetch(url, { ...init, cache: "no-store", credentials: "omit", redirect: "error", signal: this.#controller.signal });
    } catch (error) {
      throw this.#broke(error);
    }
  }

  /** The whole text of a good answer; throws what a bad one says. */
  async text(response: Response): Promise<string> {
    try {
      const body = await response.text();
      if (response.ok) return body;
      throw refusal(response, body);
    } catch (error) {
      throw this.#broke(error);
    } finally {
      clearTimeout(this.#timer);
    }
  }

  /** Text as it comes; ends where the answer breaks off. */
  async *pieces(response: Response): AsyncGenerator<string> {
    const reader = response.body?.pipeThrough(new TextDecoderStream("utf-8", { fatal: true })).getReader();
    try {
      while (reader !== undefined) {
        const { done, value } = await reader.read();
        if (done) return;
        this.heard();
        yield value;
      }
    } catch {
      // The answer lacks its last line then, which says enough.
    } finally {
      clearTimeout(this.#timer);
    }
  }

  #broke(error: unknown): CallError {
    clearTimeout(this.#timer);
    return error instanceof CallError ? error : new CallError(error instanceof Error ? error.message : String(error));
  }
}

function refusal(response: Response, body: string): CallError {
  let problem: Problem | undefined;
  try {
    problem = parseProblem(body);
  } catch {
    // Something on the way answered instead of the server.
  }
  const seconds = Number(response.headers.get("retry-after") ?? Number.NaN);
  const retryAfterMs = Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : undefined;
  return new CallError(problem?.detail ?? `status ${response.status}`, response.status, problem, retryAfterMs);
}

function isPassing(status: number): boolean {
  return status === 408 || status === 429 || status >= 500;
}

/** The rows of a range: the text of each is kept as it came. */
const rowOfRange: Reads<{ seq: number; text: string }> = (value, field) => {
  const from = object(value, field);
  const row = from.get("row");
  if (!(row instanceof JsonObject)) throw new ShapeError("row", "an object is needed");
  return { seq: member(from, "seq", natural), text: row.text };
};

const position: Reads<Cursor> = (value, field) => {
  const from = object(value, field);
  return { epoch: member(from, "epoch", hex16), seq: member(from, "seq", natural), tag: member(from, "tag", hex16) };
};

/** The calls of one device. */
export class Api {
  readonly #running = new Set<Call>();

  constructor(
    private readonly server: string,
    private readonly enrolment: Enrolment,
    private readonly isOnline: () => boolean,
  ) {}

  /** Ends every call under way: the network was switched off, or the client is closed. */
  cut(): void {
    for (const call of this.#running) call.abort();
  }

  async #call<T>(path: string, init: RequestInit, use: (call: Call, response: Response) => Promise<T>): Promise<T> {
    const call = new Call(this.isOnline);
    this.#running.add(call);
    try {
      const headers = { ...(init.headers as Record<string, string> | undefined), authorization: `Bearer ${this.enrolment.deviceId}:${this.enrolment.token}` };
      return await use(call, await call.send(`${this.server}${path}`, { ...init, headers }));
    } finally {
      this.#running.delete(call);
    }
  }

  async #get(path: string): Promise<string> {
    return this.#call(`${this.#branch}${path}`, {}, (call, response) => call.text(response));
  }

  async #post(path: string, body: string): Promise<string> {
    return this.#call(path, { method: "POST", body, headers: JSON_BODY }, (call, response) => call.text(response));
  }

  get #branch(): string {
    return `/v1/${this.enrolment.merchant}/${this.enrolment.branch}`;
  }

  /** `GET /changes`; rows join `staged`. */
  async changes(ask: Ask, staged: Staged): Promise<CatchUpOutcome> {
    try {
      return await this.#call(`${this.#branch}${changesPath(ask)}`, {}, async (call, response) => {
        if (response.status === 304) return { is: "unchanged" };
        // Throws what it says, and for a good answer that is none.
        if (response.status !== 200) throw new CallError((await call.text(response)) && "an answer that is none", response.status);
        return take(call, response, ask, staged);
      });
    } catch (error) {
      return changesFailed(error);
    }
  }

  async head(): Promise<Head> {
    return usable(await this.#get("/head"), parseHead);
  }

  async subDigests(collection: string): Promise<{ at: Cursor; digests: readonly Digest[] }> {
    try {
      const body = await this.#get(`/digests?collection=${collection}`);
      return usable(body, (text) => readText(text, subDigests));
    } catch (error) {
      // Somebody put rows here that the server has no collection for: it has none of them.
      if (!isUnknownCollection(error)) throw error;
      return { at: await this.head(), digests: Array.from({ length: SUB_DIGESTS }, () => EMPTY_DIGEST) };
    }
  }

  async rows(collection: string, ranges: readonly number[]): Promise<{ at: Cursor; rows: readonly HeldRow[] }> {
    try {
      const body = await this.#get(`/rows?collection=${collection}&range=${ranges.join(",")}`);
      return usable(body, (text) => readText(text, rowsOf(collection)));
    } catch (error) {
      if (!isUnknownCollection(error)) throw error;
      return { at: await this.head(), rows: [] };
    }
  }

  async upload(body: string): Promise<UploadOutcome> {
    try {
      return { is: "answered", verdicts: usable(await this.#post(`${this.#branch}/operations`, body), parseUploadAnswer) };
    } catch (error) {
      if (!(error instanceof CallError) || error.status === undefined) return { is: "failed", fault: NO_NETWORK };
      const code = error.problem?.code;
      if (isPassing(error.status)) return { is: "failed", fault: error.fault };
      if (error.status === 401) return { is: "refused", code: code ?? "credentials_refused" };
      if ((error.status === 403 || error.status === 404) && code !== undefined) return { is: "refused", code };
      return { is: "rejected", code: code ?? (error.status === 413 ? "body_too_large" : "path_refused") };
    }
  }

  async report(body: string): Promise<void> {
    await this.#post("/v1/devices/self/report", body);
  }

  async deadLetters(journalId: string, decided: readonly LocalDecision[], open: readonly string[]): Promise<readonly OperationDecision[]> {
    const body = JSON.stringify({ journal_id: journalId, decided, open });
    return usable(await this.#post(`${this.#branch}/dead-letters`, body), parseDeadLetterAnswer);
  }
}

function changesPath({ after, resume, overRanges }: Ask): string {
  const parameters = new URLSearchParams();
  // With the cursor the server can tell whether it still has the deletions since.
  if (after !== undefined) parameters.set("after", cursorText(after));
  if (resume !== undefined) parameters.set("resume", resume);
  // Rows that came by ranges do not say which own operations they contain.
  else if (overRanges && after !== undefined) parameters.set("ops", "all");
  return parameters.size === 0 ? "/changes" : `/changes?${parameters}`;
}

async function take(call: Call, response: Response, ask: Ask, staged: Staged): Promise<CatchUpOutcome> {
  try {
    for await (const piece of call.pieces(response)) staged.feed(piece);
  } catch {
    return { is: "failed", fault: NO_USE };
  }
  const { end } = staged;
  if (end !== undefined) return { is: "complete", ...end };
  return { is: "broken", resume: ask.overRanges ? undefined : staged.position };
}

function changesFailed(error: unknown): CatchUpOutcome {
  if (!(error instanceof CallError) || error.status === undefined) return { is: "failed", fault: NO_NETWORK };
  if (error.status === 410) return { is: "snapshot_required" };
  if (isPassing(error.status)) return { is: "failed", fault: error.fault };
  const codes: Record<number, string> = { 401: "credentials_refused", 403: "forbidden", 404: "not_found" };
  return { is: "refused", code: error.problem?.code ?? codes[error.status] ?? "unknown" };
}

/** An answer that is not the contract's counts as none. */
function usable<T>(body: string, parse: (text: string) => T): T {
  try {
    return parse(body);
  } catch (error) {
    throw new CallError(`not the answer of the contract: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function isUnknownCollection(error: unknown): boolean {
  return error instanceof CallError && error.problem?.code === "unknown_collection";
}

const subDigests: Reads<{ at: Cursor; digests: readonly Digest[] }> = (value, field) => {
  const digests = member(object(value, field), "sub_digests", list(digest));
  if (digests.length !== SUB_DIGESTS) throw new ShapeError("sub_digests", `${SUB_DIGESTS} are needed`);
  return { at: position(value, field), digests };
};

function rowsOf(collection: string): Reads<{ at: Cursor; rows: readonly HeldRow[] }> {
  return (value, field) => {
    const rows = member(object(value, field), "rows", list(rowOfRange)).map(({ seq, text }) => {
      const { id, text: body } = parseRow(text);
      return { collection, id, seq, body, hash: rowHash(collection, id, body) };
    });
    return { at: position(value, field), rows };
  };
}
