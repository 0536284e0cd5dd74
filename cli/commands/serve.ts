import { batchLines } from "../../config/batch-lines.ts";
import { readCertificate } from "../../config/certificate.ts";
import { misused, OperatorError } from "../../config/errors.ts";
import { type LoadedSettings, loadSettings } from "../../config/load.ts";
import { createLog, type Log } from "../../config/log.ts";
import { openLogSink } from "../../config/log-files.ts";
import { openTelemetry } from "../../config/telemetry.ts";
import type { Database } from "../../db/database.ts";
import { isEmbedded } from "../../db/open.ts";
import { assertRoutesKnown, routeLimits } from "../../server/app.ts";
import type { Deps } from "../../server/deps.ts";
import { audit } from "../../server/features/audit/service.ts";
import { createHashPool } from "../../server/features/passwords/hash-pool.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { openDeps, type RunningServer, startServer } from "../../server/start.ts";
import type { CommandContext, Options, Outcome } from "../command.ts";
import { listenForCommands } from "../holder.ts";
import { bold } from "../io.ts";
import { secretsOfInstallation, untilStopped } from "../long-running.ts";
import { runHeldCommand } from "../run.ts";
import { listenForScrapes } from "../scrapes.ts";
import {
  cannotListen,
  reportToParent,
  type Share,
  serveTogether,
  shareOfCores,
  workersAsked,
} from "../serve-together.ts";
import { heldWorkspace } from "../workspace.ts";

/**
 * Serves the HTTP API until SIGTERM or SIGINT. On an embedded database it is the worker too, and runs other commands for
 * their callers; on PostgreSQL it is the worker where --with-worker says so.
 */
export async function run(context: CommandContext): Promise<Outcome> {
  const loadAll = (fixed: Record<string, unknown> = {}) =>
    loadSettings(context.home, context.environment, { ...flagSettings(context), ...fixed });
  const embedded = isEmbedded(loadAll().settings);
  const asked = workersAsked(context.options, embedded);
  const share = typeof asked === "number" ? undefined : asked;
  const load: typeof loadAll = (fixed) => (share ? withinShare(loadAll, share, fixed) : loadAll(fixed));
  const loaded = load();
  const isWorker = worksToo(context.options, embedded);
  const current = { settings: loaded.settings };
  const out = context.options.json ? process.stderr : process.stdout;
  const files = openLogSink(loaded.settings.log, context.home, "serve", out, systemClock.now);
  const sink = batchLines(files.sink);
  const log = createLog(() => current.settings.log.level, sink, systemClock.now);
  if (typeof asked === "number" && asked > 1) {
    const outcome = await serveTogether(context, loaded, { count: asked, withWorker: isWorker, log });
    sink.flush();
    await files.close();
    return outcome;
  }
  const telemetry = await openTelemetry(loaded.settings, log);

  await context.workspace.withDatabase(loaded.settings, async (db) => {
    const secrets = await secretsOfInstallation(context.home, loaded, db);
    const { metrics } = telemetry;
    const deps = await openDeps({ home: context.home, settings: loaded.settings, secrets, db, log, metrics });
    const socket = embedded ? await hearCommands(context, db) : undefined;
    let background: { stop(): Promise<void> } | undefined;
    let scraped: { stop(): void } | undefined;
    try {
      const stopped = untilStopped(log); // before anybody is told that there is something to stop
      const server = listen(deps, context.home, share !== undefined);
      if (isFirst(share)) scraped = listenForScrapes(deps);
      process.on("SIGHUP", () => {
        reload(deps, current, load, log);
        server.reloadCertificate();
        deps.geo.reread();
      });
      if (isFirst(share)) announce(context, deps, server);
      deps.log.info("Serving", {
        event: "server.started",
        url: server.url,
        home: context.home,
        database: db.kind,
        pid: process.pid,
      });
      const orphaned = share ? reportToParent() : NEVER;
      if (isWorker) {
        const { workInBackground } = await import("../../worker/background.ts");
        background = await workInBackground(deps, context.home);
      }
      const settled = setTimeout(giveBackMemory, SETTLED_AFTER_MS);
      await Promise.race([stopped, orphaned]);
      clearTimeout(settled);
      await Promise.all([server.stop(), background?.stop()]);
    } finally {
      socket?.close();
      scraped?.stop();
      await background?.stop();
      await deps.close(); // which still counts
      await telemetry.close();
    }
  });
  log.info("Stopped", { event: "process.stopped" });
  sink.flush();
  await files.close();
  return { json: { stopped: true }, text: "" };
}

/** When a process that has begun to serve has done what it does only then (milliseconds). */
const SETTLED_AFTER_MS = 3000;

/** What opening a database and reading the program took, in all some ten MB, is not needed again. Takes about 50 ms. */
function giveBackMemory(): void {
  Bun.gc(true);
  Bun.shrink();
}

function flagSettings({ options }: CommandContext): Record<string, unknown> {
  const given: Record<string, unknown> = {};
  if (options.host !== undefined) given["server.host"] = options.host;
  if (options.port !== undefined) given["server.port"] = options.port;
  return given;
}

/** Whether this process does the background work as well. @throws OperatorError exit 2 */
function worksToo({ withWorker, worker }: Options, embedded: boolean): boolean {
  const without = worker === false;
  if (without && withWorker) throw misused("--with-worker and --no-worker do not go together.");
  if (without && embedded) {
    throw misused(
      "--no-worker does not go with the embedded database: only this process can get at it.",
      "Leave the flag out. To run the worker by itself, set DATABASE_URL to a PostgreSQL.",
    );
  }
  return embedded || Boolean(withWorker);
}

/** Runs other commands for their callers: this process owns the database. */
const hearCommands = (context: CommandContext, db: Database) =>
  listenForCommands(context.home, (name, invocation, io) =>
    runHeldCommand(name, invocation, { ...context, io }, heldWorkspace(db)),
  );

function listen(deps: Deps, home: string, sharesPort: boolean): RunningServer {
  try {
    return startServer(deps, () => readCertificate(deps.settings.server, home), sharesPort);
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    throw cannotListen(deps.settings.server, error);
  }
}

function announce(context: CommandContext, deps: Deps, { url }: RunningServer): void {
  const { io, home } = context;
  const line = (name: string, value: string) => `  ${bold(io, name.padEnd(9))} ${value}\n`;
  const docs = deps.settings.docs.enabled ? line("Docs", `${url}/docs`) : "";
  io.note(
    `primer ${deps.version} serves\n${line("Address", url)}${docs}${line("Home", home)}${line("Database", deps.db.address)}`,
  );
}

const NEVER = new Promise<void>(() => {});

/** What is there once for all processes of a command is the first one's. */
const isFirst = (share: Share | undefined): boolean => share === undefined || share.index === 1;

/** Settings in which what follows from the machine's cores is this process's part of it. */
function withinShare(
  load: (fixed?: Record<string, unknown>) => LoadedSettings,
  share: Share,
  fixed: Record<string, unknown> = {},
): LoadedSettings {
  const loaded = load(fixed);
  if (loaded.settings.password.hash_slots !== 0) return loaded;
  return load({ ...fixed, "password.hash_slots": String(shareOfCores(share)) });
}

/** What only counts from the next start on: it was used once, when the process began. */
const FIXED_AT_START =
  /^(environment|server\.(host|port|tls_\w+)|database\.|redis\.|telemetry\.|log\.(folder|max_bytes|keep)|mail\.(smtp_\w+|tls\w*|connections)$)/;
/** Of those, what other settings follow from: they stay as they were when settings are read again. */
const ADDRESS = ["host", "port", "tls_cert", "tls_key"] as const;

function reload(
  deps: Deps,
  current: { settings: Deps["settings"] },
  load: (fixed?: Record<string, unknown>) => LoadedSettings,
  log: Log,
): void {
  try {
    const changed = changedKeys(deps.settings, load().settings);
    const address = ADDRESS.map((name) => [`server.${name}`, String(deps.settings.server[name])]);
    const { settings } = load(Object.fromEntries(address));
    assertRoutesKnown(
      settings,
      routeLimits().map(({ route }) => route),
    );
    deps.settings = settings;
    current.settings = settings;
    if (changed.some((key) => key.startsWith("password.")))
      deps.hashPool = createHashPool(settings.password, deps.clock, deps.metrics);
    const waiting = changed.filter((key) => FIXED_AT_START.test(key));
    log.info("Settings were read again", { event: "settings.reloaded", changed, after_restart: waiting });
    if (changed.length > 0) recordReload(deps, changed);
  } catch (error) {
    log.error("Settings were not read again; the old ones stay", { event: "settings.refused", error });
  }
}

function recordReload(deps: Deps, changed: readonly string[]): void {
  const event = { action: "settings.reloaded", outcome: "success", actor: { kind: "operator" } } as const;
  deps.db
    .transaction((tx) => audit(tx, deps, { ...event, details: { changed } }))
    .catch((error) => {
      deps.log.error("That settings were read again could not be recorded", { event: "audit.not_recorded", error });
    });
}

function changedKeys(before: object, after: object, prefix = ""): string[] {
  return Object.entries(after).flatMap(([name, value]) => {
    const old = (before as Record<string, unknown>)[name];
    const isTable = typeof value === "object" && value !== null && !Array.isArray(value) && prefix === "";
    if (isTable) return changedKeys(old as object, value, `${name}.`);
    return JSON.stringify(old) === JSON.stringify(value) ? [] : [prefix + name];
  });
}
