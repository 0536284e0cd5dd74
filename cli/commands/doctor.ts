import { existsSync, statfsSync, statSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { EXIT, OperatorError, textOf } from "../../config/errors.ts";
import { type LoadedSettings, loadSettings, SECRETS_FILE } from "../../config/load.ts";
import type { Settings } from "../../config/schema.ts";
import { readSecrets } from "../../config/secrets.ts";
import type { Database } from "../../db/database.ts";
import { migrationStatus } from "../../db/migrate.ts";
import { listPublishedSigningKeys } from "../../db/queries/keys.ts";
import { hasSearchIndex, SEARCH_INDEX_STATEMENTS } from "../../db/queries/user-search.ts";
import { findOverdueSince, mayChangeAudit } from "../../server/features/audit/service.ts";
import { findLastBackup } from "../../server/features/backups/service.ts";
import { clockDifference } from "../../server/features/health/service.ts";
import { openKeyRing } from "../../server/features/keys/service.ts";
import { readFilterFacts } from "../../server/features/passwords/breach-filter.ts";
import { BREACH_FILTER_FILE, computeHash, createBreachCheck } from "../../server/features/passwords/service.ts";
import { lookAtLists, OLD_THREATS_DAYS } from "../../server/features/threats/service.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { OLD_GEOIP_DAYS, readGeoFile } from "../../server/ports/geo-file.ts";
import { SEALING_HINT } from "../audit-reader.ts";
import { checkMail } from "../check-mail.ts";
import { checkTelemetry } from "../check-telemetry.ts";
import { checkDatabaseTls, checkTls } from "../check-tls.ts";
import type { CommandContext, Outcome } from "../command.ts";
import { broken, type Finding, ok, warning } from "../findings.ts";
import { green, type Io, red, yellow } from "../io.ts";
import { checkSchedules } from "../schedules.ts";

const GIB = 1024 ** 3;
const LEAST_FREE_BYTES = GIB / 4;
const LEAST_FREE_SHARE = 0.1;
const MAX_CLOCK_DIFFERENCE_MS = 5000;
const OLD_KEY_DAYS = 365;
const CONNECT_TIMEOUT_MS = 3000;
const DAY_MS = 86_400_000;
const REDIS_PORT = 6379;

/** Looks at everything that primer stands on and says how to mend what is not right. Exit 4 where something failed. */
export async function run(context: CommandContext): Promise<Outcome> {
  const findings: Finding[] = [];
  const loaded = await attempt(findings, "settings", "Mend the line named.", async () => {
    const settings = loadSettings(context.home, context.environment);
    findings.push(ok("settings", `${settings.settings.environment}, ${context.home}`));
    return settings;
  });
  if (loaded) {
    findings.push(...checkSettings(loaded.settings), ...checkDatabaseTls(loaded.settings.database));
    findings.push(checkDisk(context.home), ...checkSecrets(context.home, loaded));
    findings.push(...(await checkBreachedPasswords(context.home, loaded.settings)));
    await attempt(findings, "hashing", "See the hint above.", async () => {
      await computeHash("doctor tries to hash this", loaded.settings.password);
      findings.push(ok("hashing", `passwords can be hashed (${loaded.settings.password.algorithm})`));
    });
    await attempt(findings, "TLS", "See the hint above.", async () => {
      findings.push(...checkTls(loaded.settings.server, context.home, systemClock.now()));
    });
    await attempt(findings, "GeoIP", "See the hint above.", async () => {
      findings.push(...(await checkGeoip(loaded.settings.accounts.geoip_file, context.home)));
    });
    await attempt(findings, "database", "See the hint above.", () =>
      context.workspace.withDatabase(loaded.settings, async (database) => {
        findings.push(...(await checkDatabase(database, loaded)));
      }),
    );
    findings.push(...(await checkMail(context.home, loaded.settings)));
    findings.push(...(await checkRedis(loaded.settings)), ...(await checkTelemetry(loaded.settings)));
  }
  const failures = findings.filter((finding) => finding.state === "failed").length;
  return {
    json: { ok: failures === 0, findings },
    text: findings.map((finding) => line(context.io, finding)).join(""),
    exitCode: failures === 0 ? EXIT.done : EXIT.finding,
  };
}

/** Runs a check that may throw; what is thrown becomes a finding. */
async function attempt<T>(
  findings: Finding[],
  check: string,
  mend: string,
  work: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof OperatorError && error.reason === "held") throw error;
    const hint = error instanceof OperatorError ? error.hint : undefined;
    findings.push(broken(check, textOf(error), hint ?? mend));
    return undefined;
  }
}

const MARKS = { ok: "ok", warning: "!!", failed: "XX" } as const;

function line(io: Io, { check, state, message, mend }: Finding): string {
  const paint = { ok: green, warning: yellow, failed: red }[state];
  return `${paint(io, MARKS[state])}  ${check.padEnd(12)} ${message}\n${mend ? `                  ${mend}\n` : ""}`;
}

function checkSettings(settings: Settings): Finding[] {
  const findings: Finding[] = [];
  const { password, server, docs } = settings;
  if (password.min_length < 15) {
    findings.push(
      warning(
        "passwords",
        `password.min_length is ${password.min_length}`,
        "15 is the least where a password is the only factor.",
      ),
    );
  }
  if (settings.environment === "production" && docs.enabled) {
    findings.push(warning("docs", "/docs is served in production", "Set docs.enabled = false."));
  }
  findings.push(ok("public URL", server.public_url));
  return findings;
}

/** Whether the list of breached passwords can be asked. Without it passwords are still held against the one built in. */
async function checkBreachedPasswords(home: string, { environment, password }: Settings): Promise<Finding[]> {
  const check = "breached";
  if (password.hibp === "off") {
    if (environment !== "production") return [];
    const mend = 'Set password.hibp = "online"; or "offline", after `primer hibp import`.';
    return [warning(check, "passwords are not looked up among the breached ones (password.hibp is off)", mend)];
  }
  const mend = password.hibp === "offline" ? IMPORT_HINT : "See that password.hibp_url is right and can be reached.";
  const path = join(home, BREACH_FILTER_FILE);
  const reasons: string[] = [];
  const list = createBreachCheck({
    settings: () => password,
    filterPath: path,
    degraded: (reason) => reasons.push(reason),
  });
  await list.look("doctor asks for a password that nobody has");
  const facts = await readFilterFacts(path).catch(() => undefined);
  const what =
    password.hibp === "offline" ? `${facts?.hashes ?? 0} passwords in ${path}` : `asked at ${password.hibp_url}`;
  return [reasons.length === 0 ? ok(check, what) : broken(check, `${what}: ${reasons.join(", ")}`, mend)];
}

const IMPORT_HINT = "Download the list and run `primer hibp import FILE|DIR`.";

/** @throws OperatorError where a file is configured and is of no use */
async function checkGeoip(name: string, home: string): Promise<Finding[]> {
  if (name === "") return [];
  const { path, type, built } = await readGeoFile(name, home);
  const days = Math.floor((systemClock.now().getTime() - built.getTime()) / DAY_MS);
  const text = `${type}, ${days} days old, ${path}`;
  const mend = "Addresses move: get a newer one (MaxMind's geoipupdate does so by itself); primer takes it at once.";
  return [days <= OLD_GEOIP_DAYS ? ok("GeoIP", text) : warning("GeoIP", text, mend)];
}

function checkDisk(home: string): Finding {
  if (!existsSync(home))
    return broken("home", `${home} does not exist`, "Run `primer init`, or name another with --dir.");
  const { bsize, bavail, blocks } = statfsSync(home);
  const free = bsize * bavail;
  const text = `${(free / GIB).toFixed(1)} GiB free in ${home}`;
  if (free < LEAST_FREE_BYTES) return broken("disk", text, "Free some space: without it nobody can log in.");
  if (bavail / blocks < LEAST_FREE_SHARE) return warning("disk", text, "Less than a tenth of the disk is free.");
  return ok("disk", text);
}

function checkSecrets(home: string, { variables }: LoadedSettings): Finding[] {
  const path = join(home, SECRETS_FILE);
  try {
    readSecrets(variables);
    const mode = statSync(path, { throwIfNoEntry: false })?.mode ?? 0o600;
    return (mode & 0o077) === 0
      ? [ok("secrets", "master key and pepper are there, and nobody else can read them")]
      : [broken("secrets", `${path} can be read by others`, `chmod 600 ${path}`)];
  } catch (error) {
    return [broken("secrets", textOf(error), (error as OperatorError).hint ?? "Put them back from their backup.")];
  }
}

/** Whoever may make things in the schema is not who should serve, where the audit log is to be kept from them. */
const NO_TABLES =
  "Run `primer migrate` with DATABASE_ADMIN_URL, the URL of the role that owns the database; with one role alone: GRANT CREATE ON SCHEMA public.";

async function checkDatabase(database: Database, loaded: LoadedSettings): Promise<Finding[]> {
  const [row] = await database.query<{ version: string; fsync: string; can: boolean; owned: boolean }>(
    `SELECT current_setting('server_version') AS version, current_setting('fsync') AS fsync,
       has_schema_privilege(current_schema(), 'CREATE') AS can, to_regclass('schema_migrations') IS NOT NULL AS owned`,
  );
  const findings = [ok("database", `PostgreSQL ${row?.version} (${database.kind}) at ${database.address}`)];
  if (row?.fsync !== "on") {
    findings.push(broken("durability", "fsync is off: a power cut loses logins", "Set fsync = on in postgresql.conf."));
  }
  if (!row?.can && !row?.owned) findings.push(broken("rights", "This user may not create tables", NO_TABLES));
  const pending = (await migrationStatus(database)).filter((migration) => migration.state === "pending");
  if (pending.length > 0) {
    return [
      ...findings,
      broken("migrations", `${pending.length} are pending`, "Run `primer init`, or `primer migrate`."),
    ];
  }
  findings.push(ok("migrations", "up to date"), ...(await checkSearch(database)), await checkClock(database));
  const backups = await checkBackups(database, loaded.settings);
  findings.push(await checkAudit(database, loaded.settings), ...(await checkSealing(database)));
  findings.push(...(await checkThreats(database, loaded.settings)));
  return [...findings, await checkKeys(database, loaded), ...backups, await checkSchedules(database)];
}

/** The extension may have been refused when the database was migrated. */
async function checkSearch(database: Database): Promise<Finding[]> {
  if (await hasSearchIndex(database.orm)) return [];
  const text = "the extension pg_trgm was not to be had: users are found only by how their names and addresses begin";
  const mend = `As an administrator of the database: ${SEARCH_INDEX_STATEMENTS}`;
  return [warning("search", text, mend)];
}

/** Triggers keep the audit log from being changed; whoever owns it can switch them off. */
async function checkAudit(database: Database, { environment }: Settings): Promise<Finding> {
  if (!(await mayChangeAudit(database)))
    return ok("audit log", "the role of DATABASE_URL may add to it, and not change it");
  const text = "kept by triggers alone, which is weaker: whoever has primer's database rights can switch them off";
  if (database.kind === "pglite" || environment === "development") return ok("audit log", text);
  return warning(
    "audit log",
    text,
    "Run `primer migrate` with DATABASE_ADMIN_URL, the URL of another role that owns the tables.",
  );
}

/** What is not in the chain can be changed unseen. */
async function checkSealing(database: Database): Promise<Finding[]> {
  const now = systemClock.now();
  const since = await findOverdueSince(database, now);
  if (!since) return [];
  const minutes = Math.floor((now.getTime() - since.getTime()) / 60_000);
  const text = `nothing was sealed for ${minutes} min: the oldest row that waits is of ${since.toISOString()}`;
  return [warning("audit chain", text, SEALING_HINT)];
}

/** Each list of bad networks: how old what is in use is, and why there is no newer one. */
async function checkThreats(database: Database, settings: Settings): Promise<Finding[]> {
  const lists = await lookAtLists(database.orm, settings);
  return lists.map(({ name, takenAt, count, problem }) => {
    const failure = problem === null ? "" : `; the last try: ${problem}`;
    const mend = `See that the source can be had and is whole; \`primer worker --run-once threat-lists\` tries again.`;
    if (!takenAt) return warning("threats", `${name} was not read yet${failure}`, mend);
    const days = Math.floor((systemClock.now().getTime() - takenAt.getTime()) / DAY_MS);
    const text = `${count} networks from ${name}, ${days} days old${failure}`;
    return problem === null && days <= OLD_THREATS_DAYS ? ok("threats", text) : warning("threats", text, mend);
  });
}

/** A backup that nobody has restored is a hope. In development none is asked for. */
async function checkBackups(database: Database, { environment, backup }: Settings): Promise<Finding[]> {
  const verified = await findLastBackup(database.orm, true);
  const taken = await findLastBackup(database.orm, false);
  const mend = "Run `primer backup FILE`, then `primer backup --verify FILE`; or set backup.folder for one every day.";
  if (!verified) {
    if (!taken && environment === "development") return [];
    return [warning("backups", taken ? "none was verified yet" : "none was taken yet", mend)];
  }
  const age = systemClock.now().getTime() - verified.takenAt.getTime();
  const text = `the last one that was verified is ${Math.floor(age / DAY_MS)} days old`;
  return [age <= backup.max_age ? ok("backups", text) : warning("backups", text, mend)];
}

async function checkClock(database: Database): Promise<Finding> {
  const difference = Math.abs(await clockDifference({ db: database, clock: systemClock }));
  const text = `${Math.round(difference)} ms from the database's`;
  return difference <= MAX_CLOCK_DIFFERENCE_MS
    ? ok("clock", text)
    : broken("clock", text, "Let both machines follow a time server (NTP).");
}

async function checkKeys(database: Database, { variables }: LoadedSettings): Promise<Finding> {
  try {
    await openKeyRing(database.orm, readSecrets(variables), systemClock);
  } catch (error) {
    return broken("keys", textOf(error), (error as OperatorError).hint ?? "Run `primer init`.");
  }
  const active = (await listPublishedSigningKeys(database.orm)).find((key) => key.state === "active");
  const days = Math.floor((systemClock.now().getTime() - (active?.activatedAt?.getTime() ?? 0)) / DAY_MS);
  const text = `${active?.algorithm} ${active?.kid.slice(0, 8)}…, ${days} days old`;
  return days <= OLD_KEY_DAYS ? ok("keys", text) : warning("keys", text, "Signing keys should be changed once a year.");
}

/** Whether something listens where Redis is said to be. */
async function checkRedis({ redis }: Settings): Promise<Finding[]> {
  if (redis.url === "") return [];
  const target = new URL(redis.url);
  const address = { host: target.hostname, port: Number(target.port) || REDIS_PORT };
  const problem = await connectionProblem(address);
  const where = `${address.host}:${address.port}`;
  if (problem) return [broken("redis", `${where}: ${problem}`, "Is Redis running, and is REDIS_URL right?")];
  return [ok("redis", `${where} accepts connections`)];
}

function connectionProblem(address: { host: string; port: number }): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ ...address, timeout: CONNECT_TIMEOUT_MS });
    const end = (problem?: string) => {
      socket.destroy();
      resolve(problem);
    };
    socket.once("connect", () => end());
    socket.once("timeout", () => end("no answer"));
    socket.once("error", (error) => end(textOf(error)));
  });
}
