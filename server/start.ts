import { join } from "node:path";
import type { Certificate } from "../config/certificate.ts";
import type { Log } from "../config/log.ts";
import { createMetrics, type Metrics, resourceOf } from "../config/meter.ts";
import type { Settings } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import { VERSION } from "../config/version.ts";
import { createBreaker } from "../db/breaker.ts";
import type { Database } from "../db/database.ts";
import { openJobQueue } from "../db/jobs.ts";
import { openRedis } from "../db/redis.ts";
import { createApp } from "./app.ts";
import { createDependencies, type Dependency } from "./dependencies.ts";
import type { Deps } from "./deps.ts";
import { createLegacyUsers } from "./features/auth/service.ts";
import { createClientStates } from "./features/clients/service.ts";
import { measureJobs } from "./features/jobs/service.ts";
import { keepKeys, openKeyRing } from "./features/keys/service.ts";
import { aloneInHome, measureInstallation, measureProcess, shareMetrics } from "./features/monitoring/service.ts";
import { createHashPool } from "./features/passwords/hash-pool.ts";
import { BREACH_FILTER_FILE, createBreachCheck } from "./features/passwords/service.ts";
import { createRevocations } from "./features/revocations/service.ts";
import { createSessionStates } from "./features/sessions/service.ts";
import { keepThreats } from "./features/threats/service.ts";
import { createVerifiedTokens } from "./features/tokens/service.ts";
import { boundConnections } from "./http/connection-bound.ts";
import { keepCertificate } from "./http/keep-certificate.ts";
import { openListener } from "./http/listener.ts";
import { type Clock, systemClock } from "./ports/clock.ts";
import { openGeo } from "./ports/geo.ts";
import { createMemoryLimiter } from "./ports/limiter.ts";
import { type Random, systemRandom } from "./ports/random.ts";
import { createRedisLimiter } from "./ports/redis-limiter.ts";
import { alone, announcePresence, type Presence, type ProcessKind } from "./presence.ts";

export interface Assembly {
  /** The folder of this process, for what is kept in files beside the database. */
  readonly home: string;
  /** What this process is there for; to serve where it is not said. */
  readonly kind?: ProcessKind;
  readonly settings: Settings;
  readonly secrets: Secrets;
  readonly db: Database;
  readonly log: Log;
  /** Of a process that serves or works in its home for long, and tells the others there; without it, it only counts. */
  readonly metrics?: Metrics;
  readonly clock?: Clock;
  readonly random?: Random;
}

/** What services work with, and how to let go of it again. */
export interface OpenDeps extends Deps {
  close(): Promise<void>;
}

/** Everything that services work with, from a migrated and initialised database. */
export async function openDeps(parts: Assembly): Promise<OpenDeps> {
  const { db, log, kind = "serve", clock = systemClock, random = systemRandom } = parts;
  const presence = db.kind === "pglite" ? alone : announcePresence({ kind, db, clock, random, log });
  try {
    await presence.look(); // before anything is read: see the restore of a backup
    return await openPresent({ ...parts, clock, random }, presence);
  } catch (error) {
    await presence.close();
    throw error;
  }
}

async function openPresent(parts: Assembly & Pick<Deps, "clock" | "random">, presence: Presence): Promise<OpenDeps> {
  const { settings, db, log, clock, random } = parts;
  const keys = await openKeyRing(db.orm, parts.secrets, clock);
  const jobs = await openJobQueue(db, {
    ring: () => keys.secrets().master,
    bytes: random.bytes,
    id: () => random.id(clock.now()),
  });
  const changes = db.watch({
    changed(change) {
      sessions.forget(change);
      legacyUsers.forget(change);
      clients.forget(change);
      revocations.changed(change);
      if (change && change.kind !== "key") return;
      keys.reload().catch((error) => log.warn("The keys could not be read", { event: "keys.not_read", error }));
    },
    feeding(works, error) {
      if (works) log.info("Changes are heard of again", { event: "changes.heard" });
      else log.warn("Changes are not heard of; rows are read instead", { event: "changes.not_heard", error });
    },
  });
  const ownLimiter = createMemoryLimiter(clock, presence.count);
  const redis = settings.redis.url === "" ? undefined : redisOf(settings.redis);
  const onRead = staleReadsTold(log);
  const sessions = createSessionStates(changes, onRead);
  const legacyUsers = createLegacyUsers(changes, onRead);
  const clients = createClientStates(changes, onRead);
  const dependencies = createDependencies(log);
  dependencies.add("database", databaseOf(db));
  for (const [index, replica] of db.replicas.entries()) {
    dependencies.add(`replica_${index + 1}`, { ...replica, meanwhile: "the primary is read instead" });
  }
  if (redis) dependencies.add("redis", redis);
  const breachCheck = createBreachCheck({
    settings: () => deps.settings.password,
    filterPath: join(parts.home, BREACH_FILTER_FILE),
    degraded: (reason) =>
      log.warn("The breached passwords could not be asked; a password was allowed without", {
        event: "breach_check_degraded",
        reason,
      }),
  });
  dependencies.add("breached_passwords", {
    breaker: breachCheck.breaker,
    meanwhile: "passwords are held against the list that is built in",
    isUsed: () => deps.settings.password.hibp === "online",
  });
  const revocations = createRevocations(() => deps);
  const metrics = parts.metrics ?? createMetrics({ resource: resourceOf(settings.environment) });
  const isAlone = parts.metrics === undefined || db.kind === "pglite";
  const nodeMetrics = isAlone ? aloneInHome(metrics) : await sharedMetrics(parts, metrics);
  const deps: OpenDeps = {
    settings,
    get secrets() {
      return keys.secrets();
    },
    db,
    log,
    dependencies,
    keys,
    jobs,
    changes,
    sessions,
    verifiedTokens: createVerifiedTokens(),
    legacyUsers,
    clients,
    limiter: redis ? createRedisLimiter(redis.scripts, ownLimiter, redis.breaker) : ownLimiter,
    geo: openGeo({ home: parts.home, file: () => deps.settings.accounts.geoip_file, log }),
    threats: keepThreats({ db, settings: () => deps.settings, log, metrics }),
    metrics,
    nodeMetrics,
    revocations,
    hashPool: createHashPool(settings.password, clock, metrics),
    breachCheck,
    clock,
    random,
    version: VERSION,
    lifecycle: { draining: false },
    async close() {
      await nodeMetrics.close();
      redis?.scripts.close();
      deps.geo.close();
      deps.threats.close();
      await presence.close();
      revocations.close();
      await changes.close();
      await jobs.close();
    },
  };
  await deps.threats.reread();
  measureJobs(deps);
  measureInstallation(deps);
  measureProcess({ metrics, home: parts.home, kind: parts.kind ?? "serve" });
  db.onQuery((ms) => metrics.record("primer_request_stage_duration_seconds", ms / 1000, { stage: "query" }));
  return deps;
}

/** Where nothing can be written into the home, such as in a container of its own, a process tells its own metrics alone. */
async function sharedMetrics(parts: Assembly & Pick<Deps, "clock" | "random">, metrics: Metrics) {
  try {
    return await shareMetrics(parts.home, metrics, parts);
  } catch (error) {
    const fields = { event: "metrics.not_shared", error };
    parts.log.warn("The metrics of this process are told alone: no socket can be made in its home", fields);
    return aloneInHome(metrics);
  }
}

function redisOf(settings: Settings["redis"]) {
  const scripts = openRedis(settings);
  // Whatever it does not do, its breaker counts: nothing is asked of it that it could refuse for good reason.
  const breaker = createBreaker("Redis", () => true);
  const ping = () => breaker.run(scripts.ping);
  const memory = () => breaker.run(scripts.memory);
  return { scripts, breaker, ping, memory, meanwhile: "limits are counted by each process" };
}

const databaseOf = ({ breaker, query, poolUse }: Database): Dependency => ({
  breaker,
  meanwhile: "requests that need it are answered 503",
  ping: () => query("SELECT 1"),
  ...(poolUse ? { poolUse } : {}),
});

/** Tells the log once when sessions begin to be taken from memory, and once when they are read again. */
function staleReadsTold(log: Log): (isStale: boolean) => void {
  let wasStale = false;
  return (isStale) => {
    if (isStale === wasStale) return;
    wasStale = isStale;
    if (isStale) {
      log.warn("The database is away; tokens are checked by what was known a moment ago", {
        event: "verify.stale",
        stale: true,
      });
    } else log.info("Tokens are checked by the database again", { event: "verify.stale", stale: false });
  };
}

/** A server that listens. */
export interface RunningServer {
  readonly url: string;
  /** Reads the files of the certificate now, and not only within two seconds. */
  reloadCertificate(): void;
  /**
   * Answers 503 at /readyz, waits for balancers to notice, ends streams, lets requests under way finish, then closes.
   */
  stop(): Promise<void>;
}

/**
 * Starts to listen at the settings' host and port: over https where there is a certificate. Throws the system's error
 * where the port is taken.
 *
 * @param readCertificate reads the certificate from its files, now and whenever they may have changed
 * @param sharesPort whether other processes of this installation listen at the same port
 */
export function startServer(
  deps: Deps,
  readCertificate: () => Certificate | undefined = () => undefined,
  sharesPort = false,
): RunningServer {
  const { host, port, tls_min_version } = deps.settings.server;
  const certificate = readCertificate();
  const listener = openListener(createApp(deps), { host, port, tls_min_version, certificate, sharesPort });
  const certificates = certificate && keepCertificate(listener, certificate, readCertificate, deps.log);
  if (certificates) {
    const leftMs = () => certificates.validUntil().getTime() - deps.clock.now().getTime();
    deps.metrics.observe("primer_certificate_expires_seconds", async () => [{ labels: {}, value: leftMs() / 1000 }]);
  }
  const bound = boundConnections(listener, () => deps.settings.server.max_connections, deps.log);
  const keeper = keepKeys(deps);
  return {
    url: `${certificate ? "https" : "http"}://${host.includes(":") ? `[${host}]` : host}:${listener.port}`,
    reloadCertificate: () => certificates?.look(),
    async stop() {
      deps.lifecycle.draining = true;
      await deps.clock.sleep(deps.settings.server.drain_delay);
      certificates?.stop();
      bound.stop();
      deps.revocations.close();
      const finished = listener.stop(false).then(() => true);
      const late = deps.clock.sleep(deps.settings.server.stop_timeout).then(() => false);
      if (!(await Promise.race([finished, late]))) await listener.stop(true);
      keeper.stop();
    },
  };
}
