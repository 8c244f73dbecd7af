/** Enrolment: a one-time claim code becomes a device with a token. */

import { collection, name, scopeName, type Scope } from "./names.js";
import { list, member, object, readText, type Reads, text } from "./shape.js";

/** What a device needs for the rest of its life. */
export interface Enrolment extends Scope {
  readonly deviceId: string;
  /** Its secret. */
  readonly token: string;
  readonly mqttUrl: string;
  /** `ws://host:port/mqtt` or `wss://…`; empty without a listener. */
  readonly wsUrl: string;
  readonly collections: readonly string[];
}

const enrolment: Reads<Enrolment> = (value, field) => {
  const from = object(value, field);
  return {
    deviceId: member(from, "device_id", name),
    token: member(from, "token", text),
    env: member(from, "env", name),
    merchant: member(from, "merchant", scopeName),
    branch: member(from, "branch", scopeName),
    mqttUrl: member(from, "mqtt_url", text),
    wsUrl: member(from, "ws_url", text),
    collections: member(from, "collections", list(collection)),
  };
};

const request: Reads<{ code: string; nonce: string }> = (value, field) => {
  const from = object(value, field);
  return { code: member(from, "code", text), nonce: member(from, "nonce", text) };
};

const rotation: Reads<{ token: string }> = (value, field) => ({ token: member(object(value, field), "token", text) });

export function parseEnrolment(body: string): Enrolment {
  return readText(body, enrolment);
}

export function parseEnrolRequest(body: string): { code: string; nonce: string } {
  return readText(body, request);
}

export function parseRotation(body: string): { token: string } {
  return readText(body, rotation);
}
