/** A real server with a shop in a directory of its own, and tills at it: what the tests with real processes share. */

import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** Nothing here takes this long unless it hangs. */
export const DEADLINE_MS = 60_000;

const program = process.env.SYNC_PROGRAM ?? fileURLToPath(new URL("../../target/debug/mstore-sync", import.meta.url));

/** Waits until `look` gives something; what it waits for is an event of another process, so it looks again and again. */
export async function eventually<T>(what: string, look: () => Promise<T | undefined> | T | undefined): Promise<T> {
  const end = Date.now() + DEADLINE_MS;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > end) throw new Error(`not within ${DEADLINE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** A child process, heard to its end. */
export class Process {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly lines: string[] = [];
  readonly #ended: Promise<void>;

  constructor(args: readonly string[], environment: Record<string, string>) {
    if (!existsSync(program)) throw new Error(`${program} is not there: cargo build --bin mstore-sync, or set SYNC_PROGRAM`);
    this.#child = spawn(program, args, { env: { ...process.env, ...environment } });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => this.lines.push(line));
    }
    this.#ended = new Promise((resolve) => this.#child.on("exit", () => resolve()));
  }

  /** The first line from `from` on that matches. */
  async said(pattern: RegExp, from = 0): Promise<RegExpMatchArray> {
    return eventually(`${pattern} in\n${this.lines.join("\n")}`, () => {
      for (const line of this.lines.slice(from)) {
        const found = line.match(pattern);
        if (found !== null) return found;
      }
      return undefined;
    });
  }

  write(line: string): void {
    this.#child.stdin.write(`${line}\n`);
  }

  async stop(): Promise<void> {
    this.#child.kill("SIGTERM");
    await this.#ended;
  }
}

/** A server with the products that `trigger shop` makes. */
export class Shop {
  static async open(): Promise<Shop> {
    const directory = mkdtempSync(join(tmpdir(), "mstore-web-"));
    const listen = ["--listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0", "--ws-listen", "127.0.0.1:0"];
    const server = new Process(["serve", "--data-dir", join(directory, "data"), ...listen], {});
    const [url] = await server.said(/http:\/\/127\.0\.0\.1:\d+/);
    await server.said(/next:/);
    const shop = new Shop(directory, server, url);
    shop.run("trigger", "shop", "m1/b1");
    return shop;
  }

  private constructor(
    readonly directory: string,
    private readonly server: Process,
    readonly url: string,
  ) {}

  get #environment(): Record<string, string> {
    return { MSTORE_SERVER: this.url, MSTORE_ADMIN_TOKEN_FILE: join(this.directory, "data", "admin.token") };
  }

  /** Runs a command of the program to its end. */
  run(...args: string[]): string {
    return execFileSync(program, args, { env: { ...process.env, ...this.#environment }, encoding: "utf8" });
  }

  /** A claim code for a till of this id. */
  claim(id: string): string {
    const { code } = JSON.parse(this.run("device", "add", "m1/b1", "--id", id, "--json")) as { code: string };
    return code;
  }

  /** `device run`: the till on a terminal. */
  till(id: string): Process {
    return new Process(["device", "run", "--db", join(this.directory, `${id}.db`), "--claim", this.claim(id)], this.#environment);
  }

  /** A call of the admin API. */
  async admin(method: string, path: string, body?: unknown): Promise<unknown> {
    const token = readFileSync(join(this.directory, "data", "admin.token"), "utf8").trim();
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    const response = await fetch(`${this.url}/v1/admin${path}`, { method, headers, body: body === undefined ? null : JSON.stringify(body) });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  async close(): Promise<void> {
    await this.server.stop();
    rmSync(this.directory, { recursive: true });
  }
}
