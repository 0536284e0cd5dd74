import type { AnyElysia } from "elysia";
import type { Log } from "../config/log.ts";
import type { Settings } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import { VERSION } from "../config/version.ts";
import type { Database } from "../db/database.ts";
import { openJobQueue } from "../db/jobs.ts";
import { createApp } from "./app.ts";
import type { Deps } from "./deps.ts";
import { openKeyRing } from "./features/keys/service.ts";
import { createHashPool } from "./features/passwords/hash-pool.ts";
import { type Clock, systemClock } from "./ports/clock.ts";
import { type Random, systemRandom } from "./ports/random.ts";

export interface Assembly {
  readonly settings: Settings;
  readonly secrets: Secrets;
  readonly db: Database;
  readonly log: Log;
  readonly clock?: Clock;
  readonly random?: Random;
}

/** Everything that services work with, from a migrated and initialised database. */
export async function openDeps(parts: Assembly): Promise<Deps> {
  const { settings, secrets, db, log } = parts;
  const clock = parts.clock ?? systemClock;
  const [keys, jobs] = await Promise.all([openKeyRing(db.orm, { secrets }), openJobQueue(db)]);
  return {
    settings,
    secrets,
    db,
    log,
    keys,
    jobs,
    hashPool: createHashPool(settings.password, clock),
    clock,
    random: parts.random ?? systemRandom,
    version: VERSION,
    lifecycle: { draining: false },
  };
}

/** A server that listens. */
export interface RunningServer {
  readonly url: string;
  /** Answers 503 at /readyz, waits for balancers to notice, lets requests under way finish, then closes. */
  stop(): Promise<void>;
}

/** An idle connection is closed after this long (seconds); a slow request gets as long for its next byte. */
const IDLE_TIMEOUT_SECONDS = 30;

/** Starts to listen at the settings' host and port. Throws the system's error where the port is taken. */
export function startServer(deps: Deps): RunningServer {
  const { host, port } = deps.settings.server;
  const app: AnyElysia = createApp(deps);
  app.listen({
    hostname: host,
    port,
    idleTimeout: IDLE_TIMEOUT_SECONDS,
    development: false,
    reusePort: false,
    maxRequestBodySize: MAX_BODY_BYTES,
  });
  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${app.server?.port ?? port}`,
    async stop() {
      deps.lifecycle.draining = true;
      await deps.clock.sleep(deps.settings.server.drain_delay);
      const finished = app.stop(false).then(() => true);
      const late = deps.clock.sleep(deps.settings.server.stop_timeout).then(() => false);
      if (!(await Promise.race([finished, late]))) await app.stop(true);
    },
  };
}

/** Where the server itself cuts a body off; the setting's own limit is lower and answers in the envelope. */
const MAX_BODY_BYTES = 1024 ** 4;
