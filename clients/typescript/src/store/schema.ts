/** The device's own database in IndexedDB: one per enrolled device and origin. */

import { type DBSchema, type IDBPDatabase, openDB } from "idb";

import type { LocalDecision } from "../protocol/dead_letter.js";
import type { Digest } from "../protocol/digest.js";

/** A row as the server sent it. */
export interface HeldRow {
  readonly collection: string;
  readonly id: string;
  readonly seq: number;
  /** Canonical JSON. */
  readonly body: string;
  readonly hash: Digest;
}

/** A row of an answer that is not complete; no body: deleted. Never shown. */
export interface StagedRow {
  readonly collection: string;
  readonly id: string;
  readonly seq: number;
  readonly row: { readonly text: string; readonly hash: Digest } | undefined;
}

/** What became of an operation so far. */
export type OperationState = "queued" | "accepted" | "rejected" | "replaced" | "discarded";

/** The journal: what this device did. */
export interface HeldOperation {
  readonly deviceSeq: number;
  readonly id: string;
  /** The device's clock, milliseconds since 1970. */
  readonly at: number;
  /** Canonical JSON, sent as it is. */
  readonly body: string;
  readonly state: OperationState;
  /** 1 once the stream contains the effect. A number, because IndexedDB indexes no booleans. */
  readonly shown: 0 | 1;
  /** A commit has named it, or it was handed in again because none did. */
  readonly named: boolean;
  /** The numbering in which it was accepted. */
  readonly epoch?: string | undefined;
  readonly seq?: number | undefined;
  readonly code?: string | undefined;
  readonly detail?: string | undefined;
  /** What took the place of a rejected one. */
  readonly replacedBy?: string | undefined;
  /** Whether the server knows of the decision. */
  readonly told: boolean;
  /** It was an operator's decision: this device has no body of what took its place. */
  readonly byOperator: boolean;
}

/** What a pending operation does to one figure, in thousandths. */
export interface HeldEffect {
  readonly collection: string;
  readonly itemId: string;
  readonly deviceSeq: number;
  readonly n: number;
  /** A count replaces; everything else adds. */
  readonly isBase: boolean;
  readonly milli: number;
}

/** Where the device is. */
export interface HeldPosition {
  readonly cursor: string;
  readonly digests: ReadonlyMap<string, Digest>;
}

/** What is staged. */
export interface StagingNote {
  readonly position: string;
  readonly snapshot: boolean;
  readonly ops: readonly string[];
}

export interface TillSchema extends DBSchema {
  /** Names and values: enrolment, position, journal id, staging note … */
  state: { key: string; value: unknown };
  row: { key: [string, string]; value: HeldRow };
  staging: { key: number; value: StagedRow };
  operation: { key: number; value: HeldOperation; indexes: { id: string; state: OperationState; shown: number } };
  effect: { key: [string, string, number, number]; value: HeldEffect; indexes: { deviceSeq: number } };
}

export type Database = IDBPDatabase<TillSchema>;
export type { LocalDecision };

/** Versions only grow; each step is written once and never changed. */
const VERSION = 1;

/** Opens the database of this name, making or upgrading it. */
export async function openDatabase(name: string): Promise<Database> {
  return openDB<TillSchema>(name, VERSION, {
    upgrade(db, from) {
      if (from < 1) {
        db.createObjectStore("state");
        db.createObjectStore("row", { keyPath: ["collection", "id"] });
        db.createObjectStore("staging", { autoIncrement: true });
        const operation = db.createObjectStore("operation", { keyPath: "deviceSeq" });
        operation.createIndex("id", "id", { unique: true });
        operation.createIndex("state", "state");
        operation.createIndex("shown", "shown");
        const effect = db.createObjectStore("effect", { keyPath: ["collection", "itemId", "deviceSeq", "n"] });
        effect.createIndex("deviceSeq", "deviceSeq");
      }
    },
    blocking(_current, _wanted, event) {
      // A newer page wants to upgrade: this one lets go and is reloaded by its user.
      (event.target as IDBDatabase).close();
    },
  });
}
