/** The body of an error answer: a stable code, what and why, what to do. */

import { flag, member, natural, object, readText, type Reads, text } from "./shape.js";

/** Why the server said no. */
export interface Problem {
  readonly status: number;
  /** Stable; see the table of error codes. */
  readonly code: string;
  readonly title: string;
  readonly detail: string;
  /** What to do. */
  readonly next: string;
  readonly retryable: boolean;
}

const problem: Reads<Problem> = (value, field) => {
  const from = object(value, field);
  return {
    status: member(from, "status", natural),
    code: member(from, "code", text),
    title: member(from, "title", text),
    detail: member(from, "detail", text),
    next: member(from, "next", text),
    retryable: member(from, "retryable", flag),
  };
};

export function parseProblem(body: string): Problem {
  return readText(body, problem);
}
