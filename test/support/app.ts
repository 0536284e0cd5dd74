import type { AnyElysia } from "elysia";
import { loadSettings } from "../../config/load.ts";
import { createLog } from "../../config/log.ts";
import { type Secrets, secretKey } from "../../config/secrets.ts";
import type { Database } from "../../db/database.ts";
import { insertInstallation, markInitialised } from "../../db/queries/installation.ts";
import { createApp } from "../../server/app.ts";
import type { Deps } from "../../server/deps.ts";
import { createSecretKey, keepSigningKey } from "../../server/features/keys/service.ts";
import { createUser, type NewUser } from "../../server/features/users/service.ts";
import { heldClock } from "../../server/ports/clock.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { type OpenDeps, openDeps } from "../../server/start.ts";
import { sharedSigningKey } from "./fixtures.ts";
import { NO_LIMITS } from "./no-limits.ts";
import { takeTestDatabase } from "./pooled-database.ts";

/** Tests that need none have no home. */
const HOME = "/nonexistent";
export const PASSWORD = "correct horse battery staple";
const OPERATOR = { kind: "operator" } as const;
const SECRETS: Secrets = {
  master: [secretKey(new Uint8Array(32).map((_, index) => index * 7))],
  pepper: [secretKey(new Uint8Array(32).map((_, index) => index * 5 + 1))],
};

/** Hashing at the floor takes 10 ms; tests that are not about its cost use one slot's worth of it all the same. */
const TEST_VARIABLES = {
  PRIMER_SERVER__PUBLIC_URL: "http://primer.test",
  PRIMER_PASSWORD__FAILURE_FLOOR: "0s",
  ...NO_LIMITS,
};

export interface TestAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever was answered
  readonly body: any;
}

/** One node of an installation. */
export type TestNode = Pick<TestApp, "deps" | "app" | "request">;

export interface TestApp {
  readonly deps: Deps;
  readonly app: AnyElysia;
  readonly db: Database;
  readonly clock: ReturnType<typeof heldClock>;
  readonly logLines: string[];
  /** Sends a request; an object body goes as JSON, a string as it is. */
  request(
    method: string,
    path: string,
    options?: { body?: unknown; headers?: Record<string, string>; token?: string },
  ): Promise<TestAnswer>;
  /** Creates an active user whose password is {@link PASSWORD}. */
  createUser(input: Partial<NewUser> & { username: string }): Promise<{ id: string; username: string }>;
  /** Logs a user in and answers the tokens. */
  login(
    username: string,
    password?: string,
  ): Promise<{ access_token: string; refresh_token: string; session_id: string }>;
  /**
   * Another node on the same database, with the same clock and nothing else in common. Closed with this one.
   *
   * @param parts what it works with instead of its own
   */
  otherNode(parts?: Partial<Deps>): Promise<TestNode>;
  close(): Promise<void>;
}

/** The body of a response; of server-sent events, which have no end, how they begin. */
export async function textOf(response: Response): Promise<string> {
  if (!response.body || !response.headers.get("content-type")?.startsWith("text/event-stream")) return response.text();
  const reader = response.body.getReader();
  const { value } = await reader.read();
  await reader.cancel();
  return new TextDecoder().decode(value);
}

/** Sends a request to an app, as {@link TestApp.request} promises. */
export const requestsTo = (app: AnyElysia): TestApp["request"] =>
  async function request(method, path, options = {}) {
    const isText = typeof options.body === "string" || options.body === undefined;
    const headers = {
      ...(options.body === undefined ? {} : { "content-type": "application/json" }),
      ...(options.token ? { authorization: `Bearer ${options.token}` } : {}),
      ...options.headers,
    };
    const body = isText ? (options.body as string | undefined) : JSON.stringify(options.body);
    const response = await app.handle(
      new Request(`http://localhost${path}`, { method, headers, ...(body === undefined ? {} : { body }) }),
    );
    const text = await textOf(response);
    const isJson = /[/+]json\b/.test(response.headers.get("content-type") ?? "");
    return { status: response.status, headers: response.headers, text, body: isJson ? JSON.parse(text) : undefined };
  };

/** The whole application on a database of its own, with a clock that stands still until it is moved. */
export async function openTestApp(variables: Record<string, string> = {}): Promise<TestApp> {
  const db = await takeTestDatabase();
  const clock = heldClock(new Date("2026-03-01T12:00:00.000Z"));
  const logLines: string[] = [];
  const { settings } = loadSettings(HOME, { ...TEST_VARIABLES, ...variables });
  const log = createLog(() => settings.log.level, { write: (line) => logLines.push(line) }, clock.now);
  const base = { secrets: SECRETS, clock, random: systemRandom };
  const signingKey = await sharedSigningKey();
  await db.transaction(async (tx) => {
    await insertInstallation(tx, { masterKeyId: SECRETS.master[0].id, createdAt: clock.now() });
    await keepSigningKey(tx, base, signingKey, { state: "active" }, OPERATOR);
    await createSecretKey(tx, base, "refresh", { state: "active" }, OPERATOR);
    await markInitialised(tx, clock.now());
  });
  const deps = await openDeps({ home: HOME, settings, db, log, ...base });
  const app = createApp(deps);
  const request = requestsTo(app);
  const others: OpenDeps[] = [];

  return {
    deps,
    app,
    db,
    clock,
    logLines,
    request,
    createUser: (input) =>
      createUser(
        deps,
        { email: `${input.username}@example.test`, password: PASSWORD, roles: ["user"], ...input },
        { actor: { kind: "operator" } },
      ),
    async login(username, password = PASSWORD) {
      const answer = await request("POST", "/api/v1/auth/login", { body: { username, password } });
      if (answer.status !== 200) throw new Error(`Login answered ${answer.status}: ${answer.text}`);
      return answer.body;
    },
    async otherNode(parts = {}) {
      const other = await openDeps({ home: HOME, settings, db: await db.again(), log, ...base });
      Object.assign(other, parts);
      others.push(other);
      const otherApp = createApp(other);
      return { deps: other, app: otherApp, request: requestsTo(otherApp) };
    },
    async close() {
      await Promise.all([deps, ...others].map((one) => one.close()));
      await db.close();
    },
  };
}
