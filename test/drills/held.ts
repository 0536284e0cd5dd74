import type { Session } from "./load.ts";

/** As a login answers it. */
export interface HeldSession extends Session {
  readonly expires_in: number;
}

/** Connections that are held open, and how they are used. */
export interface Held {
  readonly url: string;
  readonly connections: number;
  /** Each is used once in this time. */
  readonly everyMs: number;
  readonly durationMs: number;
  /** At least one for each ten connections: two that refreshed one at once would get in each other's way. */
  readonly sessions: readonly HeldSession[];
}

/** What was seen of them. */
export interface HeldReport {
  open: number;
  closed: number;
  refreshed: number;
  verified: number;
  failures: string[];
  /** Milliseconds from when each was to be sent, of what was answered with 200. */
  latencies: number[];
}
