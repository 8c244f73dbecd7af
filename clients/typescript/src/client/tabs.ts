/** Several pages of one device: one of them drives the sync, all of them sell. They talk over a channel of their own. */

import type { QueuedOperation } from "../engine/input.js";
import type { Status } from "./status.js";

/** What pages tell each other. */
export type TabMessage =
  /** An operation is in the journal: whoever drives uploads it. */
  | { readonly is: "committed"; readonly operation: QueuedOperation }
  /** Rows became visible; without names: look at everything. */
  | { readonly is: "applied"; readonly touched: ReadonlyMap<string, readonly string[]> | undefined }
  /** The journal changed. */
  | { readonly is: "journal" }
  | { readonly is: "status"; readonly status: Status }
  /** Something for whoever drives. */
  | { readonly is: "wish"; readonly wish: Wish };

/** What an app may ask of whichever page drives. */
export type Wish = "sync" | "resync" | "dead_letters" | "online" | "offline" | "status";

/** The other pages. Where browsers offer no locks (a page that came neither over TLS nor from this machine), every page believes to be alone. */
export class Tabs {
  readonly #channel: BroadcastChannel;
  #release: (() => void) | undefined;
  readonly #waiting = new AbortController();

  constructor(
    private readonly name: string,
    hear: (message: TabMessage) => void,
  ) {
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = (event: MessageEvent<TabMessage>) => hear(event.data);
  }

  tell(message: TabMessage): void {
    this.#channel.postMessage(message);
  }

  /** Calls `lead` once this page is the one that drives; it stays so until it is closed. */
  async whenFirst(lead: () => Promise<void>): Promise<void> {
    const locks = globalThis.navigator?.locks as LockManager | undefined;
    if (locks === undefined) return lead();
    const hold = async (): Promise<void> => {
      await lead();
      if (this.#waiting.signal.aborted) return;
      await new Promise<void>((resolve) => (this.#release = resolve));
    };
    try {
      await locks.request(this.name, { signal: this.#waiting.signal }, hold);
    } catch (error) {
      // It was closed before its turn came.
      if (!this.#waiting.signal.aborted) throw error;
    }
  }

  close(): void {
    this.#waiting.abort();
    this.#release?.();
    this.#channel.close();
  }
}
