/** A load on a server, sent from a process of its own, and what was seen of it. */
import { join } from "node:path";
import type { Database } from "../../db/database.ts";
import { openPglite } from "../../db/pglite.ts";
import { openPostgresAt } from "../support/database.ts";
import { ownPostgres } from "./own-postgres.ts";
import { ADMIN_PASSWORD, initHome, root, scratchFolder, start } from "./processes.ts";

export type Kind = "login" | "refresh" | "verify" | "livez" | "introspect" | "logout";

export interface Session {
  access_token: string;
  refresh_token: string;
}

export interface Load {
  readonly url: string;
  /** It ends sooner where it is told to. */
  readonly durationMs: number;
  readonly usernames: readonly string[];
  readonly password: string;
  /** Those that refreshes and verifications are made for. */
  readonly sessions: readonly Session[];
  /** Whether those that logins bring are used as well. */
  readonly keepSessions?: boolean;
  /** The service that introspects. */
  readonly client?: { readonly id: string; readonly client_secret: string };
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

export interface Generator {
  /** What was seen, once every request that was sent has its answer. */
  readonly report: Promise<Report>;
  /** Has it send no more. */
  stop(): void;
}

export function startLoad(load: Omit<Load, "password">): Generator {
  const input = JSON.stringify({ ...load, password: ADMIN_PASSWORD });
  const variables = { BUN_CONFIG_MAX_HTTP_REQUESTS: "4096" };
  const child = start([join(root, "test/drills/children/generate-load.ts")], variables, input);
  const report = child.finished.then(({ exitCode, out, notes }) => {
    if (exitCode !== 0) throw new Error(`The load could not be sent: ${notes}`);
    return JSON.parse(out) as Report;
  });
  return { report, stop: () => child.signal("SIGTERM") };
}

export const generateLoad = (load: Omit<Load, "password">): Promise<Report> => startLoad(load).report;

/** So many of a hundred are no slower than this. */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * percent) / 100))] ?? 0;
}

export interface FilledHome {
  readonly home: string;
  readonly variables: Record<string, string>;
  readonly usernames: string[];
  /** Its database, while nobody else has it. */
  open(): Promise<Database>;
  remove(): Promise<void>;
}

/** A home with so many accounts to log in to, on a database of its own. */
export async function homeWithUsers(
  kind: "PostgreSQL" | "the embedded database",
  count: number,
  algorithm?: string,
): Promise<FilledHome> {
  const scratch = scratchFolder();
  const home = join(scratch.path, "home");
  const postgres = kind === "PostgreSQL" ? await ownPostgres() : undefined;
  const variables: Record<string, string> = postgres ? { DATABASE_URL: postgres.url } : {};
  const open = () => (postgres ? openPostgresAt(postgres.url) : openPglite(home));
  await initHome(home, variables, algorithm);
  const db = await open();
  const usernames = await addUsers(db, count);
  await db.close();
  return {
    home,
    variables,
    usernames,
    open,
    async remove() {
      await postgres?.remove();
      scratch.remove();
    },
  };
}

/** Adds accounts with the administrator's password: many, so that no login waits for the row of another. */
export async function addUsers(db: Pick<Database, "query">, count: number): Promise<string[]> {
  await db.query(
    `INSERT INTO users (id, username, email, email_key, email_verified_at, status, created_at, updated_at)
     SELECT gen_random_uuid(), 'user' || n, 'user' || n || '@example.org', 'user' || n || '@example.org', created_at, status,
            created_at, updated_at
     FROM users, generate_series(1, ${count}) AS n WHERE username = 'admin'`,
  );
  await db.query(
    `INSERT INTO credentials (id, user_id, kind, secret, pepper_id, created_at, updated_at)
     SELECT gen_random_uuid(), u.id, c.kind, c.secret, c.pepper_id, c.created_at, c.updated_at
     FROM credentials c JOIN users a ON a.id = c.user_id AND a.username = 'admin', users u WHERE u.username <> 'admin'`,
  );
  return Array.from({ length: count }, (_, index) => `user${index + 1}`);
}
