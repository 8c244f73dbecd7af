/** Uploads, and the verdict for each operation. */

import { JsonObject } from "./json.js";
import { integer, list, maybe, member, missingOr, natural, object, readText, type Reads, ShapeError, text, word } from "./shape.js";

/** What became of an operation. */
export interface Verdict {
  /** As it was sent; empty when it had none. */
  readonly id: string;
  readonly status: "accepted" | "duplicate" | "rejected";
  /** The commit that contains its effect. */
  readonly seq: number | undefined;
  /** Why it was rejected, or what was noticed on an accepted one. */
  readonly code: string | undefined;
  readonly detail: string | undefined;
}

const verdict: Reads<Verdict> = (value, field) => {
  const from = object(value, field);
  return {
    id: member(from, "id", text),
    status: member(from, "status", word("accepted", "duplicate", "rejected")),
    seq: member(from, "seq", maybe(natural)),
    code: member(from, "code", maybe(text)),
    detail: member(from, "detail", maybe(text)),
  };
};

const answer: Reads<readonly Verdict[]> = (value, field) => member(object(value, field), "verdicts", list(verdict));

/** Parses the answer to an upload. */
export function parseUploadAnswer(body: string): readonly Verdict[] {
  return readText(body, answer);
}

/** The body of an upload; the operations are texts of the journal, sent as they are. */
export function uploadText(journalId: string, clockOffsetMs: number, operations: readonly string[]): string {
  return `{"journal_id":${JSON.stringify(journalId)},"clock_offset_ms":${clockOffsetMs},"operations":[${operations.join(",")}]}`;
}

/** Reads what [`uploadText`] wrote: journal, offset, operations. */
export function parseUpload(body: string): { journalId: string; clockOffsetMs: number; operations: readonly string[] } {
  const anything: Reads<string> = (value, field) => {
    if (value instanceof JsonObject) return value.text;
    throw new ShapeError(field, "an object is needed");
  };
  const upload: Reads<ReturnType<typeof parseUpload>> = (value, field) => {
    const from = object(value, field);
    return {
      journalId: member(from, "journal_id", text),
      clockOffsetMs: member(from, "clock_offset_ms", missingOr(0, integer)),
      operations: member(from, "operations", list(anything)),
    };
  };
  return readText(body, upload);
}
