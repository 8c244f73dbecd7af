/** What a client tells its app: never a silent staleness. */

import type { Cursor } from "../protocol/cursor.js";
import type { DeviceState } from "../protocol/report.js";

/** The state of the sync, for the app to show. */
export interface Status {
  readonly state: DeviceState;
  /** The last commit shown. */
  readonly cursor: Cursor | undefined;
  /** When the device last knew that it had everything, milliseconds since 1970; while it is live, that is always now. */
  readonly asOf: number | undefined;
  /** Operations that the server has not judged yet. */
  readonly queueDepth: number;
  /** When the oldest of them was made. */
  readonly oldestPending: number | undefined;
  /** Every upload is refused on its way; the operations are kept. */
  readonly uploadRefused: boolean;
  /** Times that rows here were found not to be the server's. */
  readonly digestMismatches: number;
  /** The app's own switch of the network. */
  readonly isOnline: boolean;
}

/** Before anything is known. */
export const STARTING: Status = {
  state: { name: "starting" },
  cursor: undefined,
  asOf: undefined,
  queueDepth: 0,
  oldestPending: undefined,
  uploadRefused: false,
  digestMismatches: 0,
  isOnline: true,
};

/** How old what is shown may be at `now`, milliseconds; nothing if nothing was ever fetched. */
export function staleness(status: Status, now: number): number | undefined {
  if (status.state.name === "live") return 0;
  return status.asOf === undefined ? undefined : Math.max(0, now - status.asOf);
}
