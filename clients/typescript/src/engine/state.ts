/** What the parts of a session share. Each part keeps its own; what more than one decides by is here. */

import type { Cursor } from "../protocol/cursor.js";
import type { Digests, Head } from "../protocol/head.js";
import { Dice } from "./backoff.js";
import { Buffer } from "./buffer.js";
import type { Effect } from "./effect.js";
import type { Known } from "./input.js";
import { Link } from "./link.js";
import { Pull } from "./pull.js";
import { Renumbering } from "./renumber.js";
import { Repair } from "./repair.js";
import type { SessionConfig } from "./session.js";
import { UploadQueue } from "./upload.js";

/** Things counted since the session began. */
export interface Counters {
  /** Frames that came. */
  frames: number;
  /** Frames at or below the cursor, or twice the same. */
  framesDropped: number;
  /** Times that frames were missing and a request had to fetch them. */
  gaps: number;
  /** `/changes` calls. */
  catchUps: number;
  /** Of these: came to an end, whichever. */
  ended: number;
  /** Of these: without a cursor. */
  snapshots: number;
  /** Of these: periodic. */
  polls: number;
  /** Of these: answered `304`. */
  notModified: number;
  /** Polls left out because a fresh head equalled the cursor. */
  pollsSkipped: number;
  /** Digests that differed at the same commit. */
  digestMismatches: number;
  /** Ranges fetched anew because of it. */
  rangesRepaired: number;
  /** Times that the MQTT connection was lost. */
  disconnects: number;
  /** Uploads begun. */
  uploads: number;
  /** Other epochs met. */
  renumberings: number;
}

/** Digests at a cursor. */
export interface Position {
  readonly cursor: Cursor;
  readonly digests: Digests;
}

/** The state of one device's sync. */
export class State {
  readonly effects: Effect[] = [];
  readonly dice: Dice;
  /** The collections subscribed to. */
  readonly collections: string[];
  lastNow: number;
  /** The last commit handed out to be shown. */
  cursor: Cursor | undefined;
  /** What is shown for certain. */
  shown: Position | undefined;
  /** What a head or the last line of an answer says must be. */
  expected: Position | undefined;
  /** The same, once it was compared with what is shown. */
  truth: Position | undefined;
  head: { readonly head: Head; readonly at: number } | undefined;
  /** A numbering seen on MQTT about which the server has been asked. */
  askedAbout: { readonly epoch: string; readonly seq: number } | undefined;
  /** A commit with the cursor's number but another tag was seen: nothing is shown until the server has decided. */
  inDoubt = false;
  confirmedAt: number | undefined;
  /** When the local digests were last compared with the server's. */
  comparedAt: number | undefined;
  /** The server holds commits back: what is shown is not what the branch has. */
  isHeld = false;
  readonly buffer = new Buffer();
  readonly link: Link;
  readonly pull: Pull;
  readonly repair: Repair;
  readonly renumbering = new Renumbering();
  readonly upload: UploadQueue;
  readonly counters: Counters = {
    frames: 0, framesDropped: 0, gaps: 0, catchUps: 0, ended: 0, snapshots: 0, polls: 0, notModified: 0, pollsSkipped: 0,
    digestMismatches: 0, rangesRepaired: 0, disconnects: 0, uploads: 0, renumberings: 0,
  };

  constructor(
    now: number,
    readonly config: SessionConfig,
    known: Known,
  ) {
    this.dice = new Dice(config.seed);
    this.collections = [...config.collections];
    this.lastNow = now;
    this.cursor = known.cursor;
    this.shown = known.cursor === undefined ? undefined : { cursor: known.cursor, digests: known.digests };
    this.link = new Link(now);
    this.pull = new Pull(now, known.cursor !== undefined, known.resume, config.pollIntervalMs);
    this.repair = new Repair(now + config.pollIntervalMs);
    this.upload = new UploadQueue(known.queue);
  }

  /** The cursor is the head, for all that can be known. */
  confirm(now: number): void {
    this.confirmedAt = now;
    this.pull.confirm(now);
  }
}
