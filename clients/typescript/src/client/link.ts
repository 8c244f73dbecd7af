/** The MQTT connection over WebSocket: subscribes to the exact topics of the device's branch with a clean session, and never publishes. */

import mqtt, { type MqttClient } from "mqtt";

import type { Enrolment } from "../protocol/enrolment.js";
import { type Frame, parseFrame } from "../protocol/frame.js";
import { type Head, parseHead } from "../protocol/head.js";
import { headTopic, parseTopic, updatesTopic } from "../protocol/names.js";

const KEEP_ALIVE_S = 30;
const CONNECT_TIMEOUT_MS = 5_000;
/** Return codes of CONNACK in MQTT 3.1.1: identifier rejected, bad user name or password, not authorised. */
const REFUSING = [2, 4, 5];
/** A subscription that the broker does not grant. */
const NOT_GRANTED = 128;

/** What the connection tells. */
export type LinkEvent =
  /** All topics are subscribed. */
  | { readonly is: "subscribed" }
  /** Login or a subscription was refused. */
  | { readonly is: "refused"; readonly code: string }
  /** It is over; nothing follows. */
  | { readonly is: "closed" }
  | { readonly is: "frame"; readonly collection: string; readonly frame: Frame }
  | { readonly is: "head"; readonly head: Head }
  /** Something that is neither. */
  | { readonly is: "malformed"; readonly detail: string };

/** A connection, until it is closed by either side. */
export class Link {
  readonly #client: MqttClient;
  #isOver = false;

  constructor(
    private readonly enrolment: Enrolment,
    private readonly collections: readonly string[],
    private readonly tell: (event: LinkEvent) => void,
  ) {
    this.#client = mqtt.connect(enrolment.wsUrl, {
      clientId: enrolment.deviceId,
      username: enrolment.deviceId,
      password: enrolment.token,
      clean: true,
      protocolVersion: 4,
      keepalive: KEEP_ALIVE_S,
      connectTimeout: CONNECT_TIMEOUT_MS,
      // When to try again is the engine's decision.
      reconnectPeriod: 0,
      resubscribe: false,
      queueQoSZero: false,
      // The library's other timers run in a worker made of a blob, which a strict page forbids.
      timerVariant: "native",
    });
    this.#client.on("connect", () => this.#subscribe());
    this.#client.on("message", (topic, payload) => this.#message(topic, payload));
    this.#client.on("error", (error) => this.#failed(error));
    this.#client.on("close", () => this.#end({ is: "closed" }));
  }

  #end(event: LinkEvent): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#client.end(true);
    this.tell(event);
  }

  #failed(error: Error & { code?: unknown }): void {
    const isRefusal = typeof error.code === "number" && REFUSING.includes(error.code);
    this.#end(isRefusal ? { is: "refused", code: "credentials_refused" } : { is: "closed" });
  }

  #subscribe(): void {
    const topics = [headTopic(this.enrolment), ...this.collections.map((collection) => updatesTopic(this.enrolment, collection))];
    this.#client.subscribe(topics, { qos: 0 }, (error, granted) => {
      if (this.#isOver) return;
      if (granted?.some(({ qos }) => (qos as number) === NOT_GRANTED)) this.#end({ is: "refused", code: "forbidden" });
      else if (error) this.#end({ is: "closed" });
      else this.tell({ is: "subscribed" });
    });
  }

  /** Subscribes to one more collection; a refusal of it leaves the others alone: catch-ups bring its changes. */
  subscribe(collection: string): void {
    this.#client.subscribe(updatesTopic(this.enrolment, collection), { qos: 0 }, () => undefined);
  }

  #message(topic: string, payload: Uint8Array): void {
    if (this.#isOver) return;
    this.tell(read(topic, payload, this.enrolment));
  }

  /** Closes the connection without a word. */
  close(): void {
    this.#isOver = true;
    this.#client.end(true);
  }
}

function read(topic: string, payload: Uint8Array, own: Enrolment): LinkEvent {
  try {
    const of = parseTopic(topic);
    if (of === undefined || of.scope.branch !== own.branch || of.scope.merchant !== own.merchant || of.scope.env !== own.env) {
      return { is: "malformed", detail: `a topic of somebody else: ${topic}` };
    }
    const text = new TextDecoder("utf-8", { fatal: true }).decode(payload);
    if (of.collection === undefined) return { is: "head", head: parseHead(text) };
    return { is: "frame", collection: of.collection, frame: parseFrame(text) };
  } catch (error) {
    return { is: "malformed", detail: `${topic}: ${error instanceof Error ? error.message : String(error)}` };
  }
}
