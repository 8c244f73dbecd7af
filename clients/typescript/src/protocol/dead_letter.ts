/** Dead letters: what became of rejected operations, whoever decided. */

import { operationId } from "./operation.js";
import { list, maybe, member, missingOr, natural, object, readText, type Reads, text, word } from "./shape.js";
import { timestamp } from "./timestamp.js";

/** The one decision about a rejected operation that counts. */
export interface OperationDecision {
  readonly id: string;
  readonly decision: "replaced" | "discarded";
  readonly replacedBy: string | undefined;
  readonly decidedBy: "device" | "operator";
  readonly reason: string;
  /** Milliseconds since 1970. */
  readonly decidedAt: number;
}

/** What somebody at the till decided, in the words of the wire. */
export interface LocalDecision {
  readonly id: string;
  readonly device_seq: number;
  readonly replaced_by: string | null;
}

const decision: Reads<OperationDecision> = (value, field) => {
  const from = object(value, field);
  return {
    id: member(from, "id", operationId),
    decision: member(from, "decision", word("replaced", "discarded")),
    replacedBy: member(from, "replaced_by", maybe(operationId)),
    decidedBy: member(from, "decided_by", word("device", "operator")),
    reason: member(from, "reason", missingOr("", text)),
    decidedAt: member(from, "decided_at", timestamp),
  };
};

const local: Reads<LocalDecision> = (value, field) => {
  const from = object(value, field);
  return {
    id: member(from, "id", operationId),
    device_seq: member(from, "device_seq", natural),
    replaced_by: member(from, "replaced_by", maybe(operationId)) ?? null,
  };
};

/** Parses the answer to `POST …/dead-letters`. */
export function parseDeadLetterAnswer(body: string): readonly OperationDecision[] {
  return readText(body, (value, field) => member(object(value, field), "decisions", list(decision)));
}

/** Reads the body of `POST …/dead-letters`. */
export function parseDeadLetterReport(body: string): { journalId: string; decided: readonly LocalDecision[]; open: readonly string[] } {
  return readText(body, (value, field) => {
    const from = object(value, field);
    return {
      journalId: member(from, "journal_id", text),
      decided: member(from, "decided", missingOr([], list(local))),
      open: member(from, "open", missingOr([], list(operationId))),
    };
  });
}
