/** A load on a server, sent from a process of its own, and what was seen of it. */
import { join } from "node:path";
import { ADMIN_PASSWORD, root, start } from "./processes.ts";

export type Kind = "login" | "refresh" | "verify" | "livez";

export interface Session {
  access_token: string;
  refresh_token: string;
}

export interface Load {
  readonly url: string;
  readonly durationMs: number;
  readonly usernames: readonly string[];
  readonly password: string;
  /** Those that refreshes and verifications are made for. */
  readonly sessions: readonly Session[];
  /** Whether those that logins bring are used as well. */
  readonly keepSessions?: boolean;
  /** How many of each are sent in a second, whatever becomes of them. */
  readonly perSecond: Partial<Record<Kind, number>>;
  /** Besides, so many logins at a time, each as soon as the one before it was answered. */
  readonly loginsAtATime?: number;
}

/** What was seen of one kind of request. Times in milliseconds. */
export interface Seen {
  scheduled: number;
  /** By status, from when each was to be sent. */
  latencies: Record<number, number[]>;
  /** How long after its time each was sent. */
  lateness: number[];
  /** Answers of 503 that did not say when to come again. */
  withoutRetryAfter: number;
  /** Requests without an answer. */
  failures: string[];
}

export interface Report {
  readonly tookMs: number;
  readonly kinds: Record<Kind, Seen>;
  readonly sessions: Session[];
}

export async function generateLoad(load: Omit<Load, "password">): Promise<Report> {
  const input = JSON.stringify({ ...load, password: ADMIN_PASSWORD });
  const variables = { BUN_CONFIG_MAX_HTTP_REQUESTS: "4096" };
  const child = start([join(root, "test/drills/children/generate-load.ts")], variables, input);
  const { exitCode, out, notes } = await child.finished;
  if (exitCode !== 0) throw new Error(`The load could not be sent: ${notes}`);
  return JSON.parse(out);
}

/** So many of a hundred are no slower than this. */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * percent) / 100))] ?? 0;
}
