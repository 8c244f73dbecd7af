/** Rows of a `/changes` answer on their way: parsed line by line as the text comes, shown only when the last line is there. */

import { type ChangesEnd, type ChangesFirst, parseEnd, parseFirst, parseLine } from "../protocol/changes.js";
import type { Cursor } from "../protocol/cursor.js";
import type { Digests } from "../protocol/head.js";
import { LINE_CHARS_MAX } from "../protocol/limits.js";
import type { StagedRow } from "./schema.js";

/** An answer that cannot be used. */
export class StageError extends Error {
  constructor(line: number, detail: string) {
    super(`line ${line} of the answer is not what the contract says: ${detail}`);
    this.name = "StageError";
  }
}

/** The rows so far. Earlier ones of the same answer may lie in the staging table (`spilled`). */
export class Staged {
  readonly rows: StagedRow[] = [];
  /** The caller's own operations that the rows contain. */
  readonly ops: string[] = [];
  /** The same row may stand twice: rows of earlier answers are in here or in the staging table. */
  joined = false;
  /** Some rows are in the staging table. */
  spilled = false;
  /** Where to go on after the last whole line. */
  position: string | undefined;
  #rest = "";
  #lines = 0;
  #first: ChangesFirst | undefined;
  #end: ChangesEnd | undefined;

  /** The rows lie in the staging table since an earlier run. */
  static onDisk(ops: readonly string[]): Staged {
    const staged = new Staged();
    staged.ops.push(...ops);
    staged.joined = true;
    staged.spilled = true;
    return staged;
  }

  /** Another answer follows that goes on from here. */
  goOn(): void {
    this.#rest = "";
    this.#first = undefined;
    this.#end = undefined;
    this.joined = true;
  }

  /** Takes the next text, cut anywhere. */
  feed(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#line(line);
    if (this.#rest.length > LINE_CHARS_MAX) throw new StageError(this.#lines + 1, "it is too long");
  }

  #line(line: string): void {
    this.#lines += 1;
    try {
      this.#take(line);
    } catch (error) {
      throw new StageError(this.#lines, error instanceof Error ? error.message : String(error));
    }
  }

  #take(line: string): void {
    if (this.#end !== undefined) throw new Error("it follows the last line");
    if (line.length > LINE_CHARS_MAX) throw new Error("it is too long");
    if (this.#first === undefined) {
      this.#first = parseFirst(line);
      this.ops.push(...this.#first.ops);
    } else if (line.startsWith('{"end"')) {
      this.#end = parseEnd(line);
    } else {
      const { collection, id, seq, position, row } = parseLine(line);
      this.rows.push({ collection, id, seq, row });
      this.position = position;
    }
  }

  /** Where the answer ends and what must hold there; nothing while the last line is missing. */
  get end(): { readonly to: Cursor; readonly digests: Digests } | undefined {
    if (this.#first === undefined || this.#end === undefined) return undefined;
    return { to: { epoch: this.#first.epoch, seq: this.#end.seq, tag: this.#end.tag }, digests: this.#end.digests };
  }
}
