/** What a load generator is asked for and answers, over its standard input and output. */
import type { StoredHistogram } from "./histogram.ts";
import type { Kind, Mix } from "./scenarios.ts";

/** What is sent in one go. */
export interface Load {
  /** Kinds of requests; or one request as it is, for the bare routes. */
  readonly what: { readonly mix: Mix } | { readonly raw: string };
  readonly connections: number;
  /** Requests a second at constant distances, whatever the server does. Null: each connection sends when it is answered. */
  readonly rate: number | null;
  readonly warmUpMs: number;
  readonly durationMs: number;
  readonly timeoutMs: number;
}

/** What came of it; what was sent in the warm-up is not in it. */
export interface LoadResult {
  readonly seconds: number;
  /** Successes that arrived within the time. */
  readonly completed: number;
  /** Requests that belong to the time, whatever became of them. */
  readonly requests: number;
  /** Of successes, and of those that were given up with the time that they had waited until then. */
  readonly latency: StoredHistogram;
  readonly byKind: Readonly<Partial<Record<Kind, StoredHistogram>>>;
  readonly errors: Readonly<Record<string, number>>;
  /** How late requests were sent though a connection was free: the generator's own fault. */
  readonly lateness: StoredHistogram;
  /** Requests that were due and found no free connection. */
  readonly waited: number;
  /** Cores that the generator kept busy. */
  readonly cores: number;
}

/** The measured time begins or ends, or how it goes. */
export type LoadEvent =
  | { readonly at: "begin" | "end" }
  | {
      readonly at: "now";
      readonly seconds: number;
      readonly completed: number;
      readonly errors: number;
      readonly p99Ms: number;
    };

/** What was taken back at the end, and what is left behind. */
export interface CleanedUp {
  readonly sessionsEnded: number;
  readonly sessionsLeft: number;
  readonly accountsDeactivated: number;
  readonly accountsLeft: number;
}
