/** Replays `golden/`: every accepted text parses to what stands beside it, every refused one is refused. */

import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

import { parseEnd, parseFirst, parseLine } from "../src/protocol/changes.js";
import { claimLinkText, parseClaimLink } from "../src/protocol/claim_link.js";
import { cursorText, isPosition, parseCursor } from "../src/protocol/cursor.js";
import { parseDeadLetterAnswer, parseDeadLetterReport } from "../src/protocol/dead_letter.js";
import { bucketOf, DigestSum, parseDigest, rowHash } from "../src/protocol/digest.js";
import { parseEnrolment, parseEnrolRequest, parseRotation } from "../src/protocol/enrolment.js";
import { parseFrame } from "../src/protocol/frame.js";
import { parseHead } from "../src/protocol/head.js";
import { money, moneyText } from "../src/protocol/money.js";
import { headTopic, parseTopic, updatesTopic } from "../src/protocol/names.js";
import { OperationError, parseOperation } from "../src/protocol/operation.js";
import { parseProblem } from "../src/protocol/problem.js";
import { parseQuantity, quantityText } from "../src/protocol/quantity.js";
import { parseReport } from "../src/protocol/report.js";
import { parseRow, RowError } from "../src/protocol/row.js";
import { readText } from "../src/protocol/shape.js";
import { parseTimestamp, timestampText } from "../src/protocol/timestamp.js";
import { parseUpload, parseUploadAnswer, uploadText } from "../src/protocol/upload.js";

interface Case {
  readonly name: string;
  readonly text: string;
  readonly kind: string;
  readonly [more: string]: unknown;
}

const directory = new URL("../../../golden/", import.meta.url);

/** Messages between the server and a merchant's backend or an operator: no till reads or writes them. */
const NOT_OF_A_TILL = ["backend_verdict", "delivery", "event", "journal"];

function must<T>(found: T | undefined): T {
  if (found === undefined) throw new Error("refused");
  return found;
}

/** For each file what an implementation does with one case: it throws if the text is refused. */
const replays: Record<string, (of: Case) => void> = {
  row: (of) => {
    const row = parseRow(of.text);
    if (of.canonical === undefined) return;
    expect(row.text).toBe(of.canonical);
    expect(rowHash(of.collection as string, row.id, row.text)).toBe(of.hash);
    expect(bucketOf(row.id)).toBe(of.bucket);
  },
  digest: (of) => {
    if (of.rows === undefined) return void must(parseDigest(of.text));
    const sum = new DigestSum();
    for (const text of of.rows as string[]) {
      const row = parseRow(text);
      sum.add(rowHash(of.collection as string, row.id, row.text));
    }
    expect(sum.value).toBe(of.digest);
  },
  frame: (of) => {
    expect(parseFrame(of.text).type).toBe(of.type_of);
  },
  head: (of) => void parseHead(of.text),
  changes: (of) => {
    const parse = { first: parseFirst, line: parseLine, end: parseEnd, position: (raw: string) => must(isPosition(raw) || undefined) };
    parse[of.kind as keyof typeof parse](of.text);
  },
  topic: (of) => {
    const topic = must(parseTopic(of.text));
    expect(topic.collection ?? null).toBe(of.collection);
    expect(topic.collection === undefined ? headTopic(topic.scope) : updatesTopic(topic.scope, topic.collection)).toBe(of.text);
  },
  claim_link: (of) => {
    const link = must(parseClaimLink(of.text));
    expect(link).toEqual({ server: of.server, code: of.code });
    expect(claimLinkText(link)).toBe(of.written);
  },
  cursor: (of) => expect(cursorText(must(parseCursor(of.text)))).toBe(of.text),
  quantity: (of) => {
    const milli = must(parseQuantity(of.text));
    expect([milli, quantityText(milli)]).toEqual([of.milli, of.text]);
  },
  money: (of) => expect(moneyText(readText(of.text, money))).toBe(of.shown),
  timestamp: (of) => {
    const ms = must(parseTimestamp(of.text));
    expect([ms, timestampText(ms)]).toEqual([of.ms, of.text]);
  },
  operation: (of) => void parseOperation(of.text),
  upload: (of) => {
    if (of.kind !== "upload") return void parseUploadAnswer(of.text);
    const { journalId, clockOffsetMs, operations } = parseUpload(of.text);
    expect(parseUpload(uploadText(journalId, clockOffsetMs, operations)).operations).toEqual(operations);
  },
  enrolment: (of) => {
    const parse = { request: parseEnrolRequest, enrolment: parseEnrolment, rotation: parseRotation };
    parse[of.kind as keyof typeof parse](of.text);
  },
  report: (of) => void parseReport(of.text),
  problem: (of) => void parseProblem(of.text),
  dead_letter: (of) => void parseDeadLetterReport(of.text),
  dead_letter_answer: (of) => void parseDeadLetterAnswer(of.text),
};

/** The name of the error: a parser's own, for a parser that lets a text through fails a comparison instead. */
function refusal(work: () => void): string {
  try {
    work();
  } catch (error) {
    return (error as Error).name;
  }
  throw new Error("it was accepted");
}

function load(name: string): { accepted: Case[]; refused: Case[] } {
  return JSON.parse(readFileSync(new URL(`${name}.json`, directory), "utf8")) as { accepted: Case[]; refused: Case[] };
}

describe("golden files", () => {
  const files = readdirSync(directory).filter((file) => file.endsWith(".json")).map((file) => file.replace(".json", ""));

  it("are all replayed, but for those that no till meets", () => {
    expect(files.sort()).toEqual([...Object.keys(replays), ...NOT_OF_A_TILL].sort());
  });

  for (const [name, replay] of Object.entries(replays)) {
    const golden = load(name);
    describe(name, () => {
      it.each(golden.accepted.map((of) => [of.name, of] as const))("accepts %s", (_, of) => replay(of));
      it.each(golden.refused.map((of) => [of.name, of] as const))("refuses %s", (_, of) => {
        expect(refusal(() => replay(of))).not.toBe("AssertionError");
      });
    });
  }

  it.each(load("row").refused.map((of) => [of.name, of] as const))("refuses a row for the named reason: %s", (_, of) => {
    try {
      parseRow(of.text);
    } catch (error) {
      expect((error as RowError).reason).toBe(of.reason);
      return;
    }
    expect.fail("accepted");
  });

  it.each(load("operation").refused.map((of) => [of.name, of] as const))("refuses an operation with the code of its verdict: %s", (_, of) => {
    try {
      parseOperation(of.text);
    } catch (error) {
      expect(error).toBeInstanceOf(OperationError);
      expect((error as OperationError).code).toBe(of.code);
      return;
    }
    expect.fail("accepted");
  });
});
