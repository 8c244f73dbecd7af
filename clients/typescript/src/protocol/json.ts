/**
 * JSON as the contract means it: numbers keep their spelling and objects their text, so that a float, a rounded integer or a key that
 * stands twice is seen. `JSON.parse` sees none of these.
 */

/** Why a text is not JSON of the contract. */
export type JsonReason = "syntax" | "float" | "integer" | "duplicate_key" | "deep" | "large";

/** A text that cannot be used. */
export class JsonError extends Error {
  constructor(
    readonly reason: JsonReason,
    detail: string,
  ) {
    super(detail);
    this.name = "JsonError";
  }
}

/** An object: its members and the text they were read from. */
export class JsonObject {
  constructor(
    readonly members: ReadonlyMap<string, Json>,
    readonly text: string,
  ) {}

  get(name: string): Json | undefined {
    return this.members.get(name);
  }
}

/** A number by its spelling. */
export class JsonNumber {
  constructor(readonly text: string) {}
}

/** A value of a JSON text. */
export type Json = null | boolean | string | JsonNumber | Json[] | JsonObject;

/** Nesting that no message of the contract needs; guards the stack. */
const DEPTH_MAX = 64;

const SHORT_ESCAPES: Record<string, string> = {
  '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t",
};

/** Reads one JSON value. */
export function readJson(text: string): Json {
  const reader = new Reader(text);
  reader.space();
  const value = reader.value(0);
  reader.space();
  if (reader.at !== text.length) throw reader.syntax();
  return value;
}

class Reader {
  at = 0;

  constructor(private readonly text: string) {}

  syntax(): JsonError {
    return new JsonError("syntax", `not valid JSON at character ${this.at}`);
  }

  space(): void {
    while (this.at < this.text.length && " \t\n\r".includes(this.text[this.at]!)) this.at += 1;
  }

  value(depth: number): Json {
    if (depth > DEPTH_MAX) throw new JsonError("deep", `nested deeper than ${DEPTH_MAX} levels`);
    switch (this.text[this.at]) {
      case '"':
        return this.string();
      case "{":
        return this.object(depth + 1);
      case "[":
        return this.array(depth + 1);
      case "t":
        return this.word("true", true);
      case "f":
        return this.word("false", false);
      case "n":
        return this.word("null", null);
      default:
        return this.number();
    }
  }

  private word<T extends null | boolean>(word: string, value: T): T {
    if (!this.text.startsWith(word, this.at)) throw this.syntax();
    this.at += word.length;
    return value;
  }

  private eat(char: string): boolean {
    const there = this.text[this.at] === char;
    if (there) this.at += 1;
    return there;
  }

  private object(depth: number): JsonObject {
    const from = this.at;
    const members = new Map<string, Json>();
    this.at += 1;
    this.space();
    if (this.eat("}")) return new JsonObject(members, this.text.slice(from, this.at));
    for (;;) {
      this.space();
      if (this.text[this.at] !== '"') throw this.syntax();
      const key = this.string();
      if (members.has(key)) throw new JsonError("duplicate_key", `the key ${JSON.stringify(key)} stands twice in one object`);
      this.space();
      if (!this.eat(":")) throw this.syntax();
      this.space();
      members.set(key, this.value(depth));
      this.space();
      if (this.eat("}")) return new JsonObject(members, this.text.slice(from, this.at));
      if (!this.eat(",")) throw this.syntax();
    }
  }

  private array(depth: number): Json[] {
    const values: Json[] = [];
    this.at += 1;
    this.space();
    if (this.eat("]")) return values;
    for (;;) {
      this.space();
      values.push(this.value(depth));
      this.space();
      if (this.eat("]")) return values;
      if (!this.eat(",")) throw this.syntax();
    }
  }

  private number(): JsonNumber {
    const spelling = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
    spelling.lastIndex = this.at;
    const found = spelling.exec(this.text)?.[0];
    if (found === undefined) throw this.syntax();
    this.at += found.length;
    return new JsonNumber(found);
  }

  private string(): string {
    let out = "";
    this.at += 1;
    let from = this.at;
    for (;;) {
      const char = this.text[this.at];
      if (char === undefined || char < " ") throw this.syntax();
      if (char === '"') break;
      if (char === "\\") {
        out += this.text.slice(from, this.at) + this.escape();
        from = this.at;
      } else {
        this.at += 1;
      }
    }
    out += this.text.slice(from, this.at);
    this.at += 1;
    // A lone surrogate has no UTF-8.
    if (!out.isWellFormed()) throw this.syntax();
    return out;
  }

  private escape(): string {
    const kind = this.text[this.at + 1] ?? "";
    if (kind === "u") {
      const hex = this.text.slice(this.at + 2, this.at + 6);
      if (!/^[0-9a-fA-F]{4}$/.test(hex)) throw this.syntax();
      this.at += 6;
      return String.fromCharCode(Number.parseInt(hex, 16));
    }
    const short = SHORT_ESCAPES[kind];
    if (short === undefined) throw this.syntax();
    this.at += 2;
    return short;
  }
}
