import { existsSync, readFileSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import { misused, textOf } from "../../config/errors.ts";
import { type LoadedSettings, loadSettings, SETTINGS_FILE } from "../../config/load.ts";
import { readSecrets } from "../../config/secrets.ts";
import type { Database } from "../../db/database.ts";
import { asOwner } from "../../db/grants.ts";
import { isMigrated, migrate } from "../../db/migrate.ts";
import { audit } from "../../server/features/audit/service.ts";
import {
  type Administrator,
  findInstalled,
  finishInitialising,
  initialise,
} from "../../server/features/installation/service.ts";
import { openSecrets } from "../../server/features/keys/service.ts";
import { weaknessesOf } from "../../server/features/passwords/service.ts";
import {
  findUserByAny,
  parseEmail,
  parseUsername,
  setPassword,
  type UserDeps,
  type UserView,
} from "../../server/features/users/service.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { numberFlag } from "../bench/options.ts";
import type { CommandContext, Outcome } from "../command.ts";
import { ADMIN_URL, assertSecretsKept, writeInstallationFiles } from "../installation-files.ts";
import { bold, dim } from "../io.ts";
import { servicesOn } from "../workspace.ts";

export { askInit as ask } from "./init-wizard.ts";

/** Which flag sets which setting. */
const FLAG_SETTINGS: Readonly<Record<string, string>> = {
  environment: "environment",
  publicUrl: "server.public_url",
  databaseUrl: "database.url",
  databaseAdminUrl: ADMIN_URL,
  redisUrl: "redis.url",
  smtpUrl: "mail.smtp_url",
  otlpEndpoint: "telemetry.otlp_endpoint",
  algorithm: "tokens.algorithm",
  keyBits: "keys.bits",
};

/** Sets up an installation; each step looks first whether it has been done, so that a second run finishes or says so. */
export async function run(context: CommandContext): Promise<Outcome> {
  const { options, io, home } = context;
  if (!options.yes && !io.interactive) {
    throw misused(
      "There is no terminal to ask on.",
      "Add --yes to take the defaults, and flags for what should differ.",
    );
  }
  const password = await givenPassword(context);
  const given = flagSettings(options);
  const flags = { ...given, ...(await hashFlags(context, loadSettings(home, context.environment, given))) };
  const loaded = loadSettings(home, context.environment, flags);
  const administrator = administratorOf(context, loaded, password);
  assertNames(administrator);
  if (password !== undefined) await assertStrong(loaded, administrator);

  const setUp = (database: Database) =>
    database.exclusively(LOCK, () => setUpDatabase(context, database, loaded, flags, password));
  return context.workspace.withDatabase(loaded.settings, setUp, { create: true });
}

/** The administrator's password: from standard input, a file, or the wizard; undefined where one is to be made. */
async function givenPassword({ options, io }: CommandContext): Promise<string | undefined> {
  const { adminPasswordStdin, adminPasswordFile: file, adminPassword } = options;
  if (adminPasswordStdin && file !== undefined) {
    throw misused("--admin-password-stdin and --admin-password-file do not go together.");
  }
  if (adminPasswordStdin) return (await io.input()).replace(/\r?\n$/, "");
  if (typeof file !== "string") return stringOption(adminPassword);
  try {
    return readFileSync(file, "utf8").split(/\r?\n/)[0] ?? "";
  } catch (error) {
    throw misused(
      `--admin-password-file: ${file} cannot be read: ${textOf(error)}`,
      "Name a file that it is in.",
      error,
    );
  }
}

/**
 * With --logins-per-second the strongest hash with which this machine reaches that rate, which is measured; never a weaker
 * one than the defaults. Nothing where the settings are there already and stay.
 */
async function hashFlags({ options, home, io }: CommandContext, { settings }: LoadedSettings) {
  const wanted = numberFlag(options, "loginsPerSecond", null, 1, 100_000);
  const stays = existsSync(join(home, SETTINGS_FILE)) && !options.force;
  if (wanted === null || stays || settings.password.algorithm !== "argon2id") return {};
  const { quickRecommendation } = await import("../bench/quick-look.ts");
  const { memory_kib, iterations, planned, machines } = await quickRecommendation(settings, wanted);
  const reached =
    machines === 1
      ? `with it this machine can be planned with for ${Math.floor(planned)} logins/s`
      : `even with it, the weakest that may be used, this takes ${machines} such machines`;
  io.note(`Passwords are hashed with ${memory_kib} KiB and ${iterations} passes: ${reached}.\n`);
  return { "password.memory_kib": String(memory_kib), "password.iterations": String(iterations) };
}

/** What somebody mistyped is found out before anything is written. */
function assertNames({ username, email }: Administrator): void {
  if (!parseUsername(username))
    throw misused(`--admin-username: expected 2 to 64 of a-z, 0-9, . _ -, not ${username}.`);
  if (!parseEmail(email)) throw misused(`--admin-email: expected an address such as ada@example.org, not ${email}.`);
}

/** One process at a time sets up a database. */
const LOCK = "primer init";

async function setUpDatabase(
  context: CommandContext,
  database: Database,
  loaded: LoadedSettings,
  flags: Readonly<Record<string, unknown>>,
  password: string | undefined,
): Promise<Outcome> {
  const { io, home, environment } = context;
  const installed = await findInstalled(database);
  if (installed) {
    assertSecretsKept(home, loaded, installed.masterKeyId);
    await openSecrets(database.orm, readSecrets(loaded.variables));
  }
  const finished = Boolean(installed?.initialisedAt);
  const replace = !finished || Boolean(context.options.force);
  const files = writeInstallationFiles({ home, environment, loaded, flags, replace, random: systemRandom.bytes });
  const { settings } = files.loaded;
  const isUpToDate = settings.database.admin_url === "" && (await isMigrated(database));
  const migrations = isUpToDate
    ? []
    : await asOwner(settings, home, database, (owner) => migrate(owner, systemClock.now));
  return servicesOn(context, files.loaded, database, async (deps) => {
    if (!finished) io.note(dim(io, `Making a signing key (${signatureOf(files.loaded)}); this takes some seconds.\n`));
    const admin = administratorOf(context, files.loaded, password);
    const done = await initialise(deps, async () => admin);
    const reset =
      finished && context.options.force && password !== undefined ? await resetAdmin(deps, admin) : undefined;
    if (finished && files.written) {
      const event = { action: "settings.replaced", outcome: "success", actor: { kind: "operator" } } as const;
      await deps.db.transaction((tx) => audit(tx, deps, event));
    }
    const administrator = done.administrator ?? reset;
    if (done.administrator) {
      if (password === undefined) showCredentials(context, done.administrator.username, admin.password);
      await finishInitialising(deps);
    }
    return describe(home, {
      files: files.written,
      migrations,
      keyCreated: done.keyCreated,
      administrator,
      shownPassword: password === undefined && done.administrator ? admin.password : null,
    });
  });
}

const stringOption = (value: unknown) => (typeof value === "string" && value !== "" ? value : undefined);

const signatureOf = ({ settings }: LoadedSettings) =>
  /^[RP]S/.test(settings.tokens.algorithm)
    ? `${settings.tokens.algorithm}, ${settings.keys.bits} bits`
    : settings.tokens.algorithm;

function flagSettings(options: CommandContext["options"]): Record<string, unknown> {
  const given = Object.entries(FLAG_SETTINGS).filter(([flag]) => options[flag] !== undefined);
  return Object.fromEntries(given.map(([flag, key]) => [key, options[flag]]));
}

function administratorOf(
  context: CommandContext,
  { settings }: LoadedSettings,
  password: string | undefined,
): Administrator {
  const username = stringOption(context.options.adminUsername) ?? "admin";
  const { hostname } = new URL(settings.server.public_url);
  const email =
    stringOption(context.options.adminEmail) ?? `${username}@${isIP(hostname) === 0 ? hostname : "localhost"}`;
  return { username, email, password: password ?? readablePassword(settings.password) };
}

/** Enough for any setting of the length; 125 bits in five groups by default. */
const LETTERS_IN_GROUP = 5;
const FEWEST_GROUPS = 5;
type PasswordSettings = Pick<LoadedSettings["settings"]["password"], "min_length" | "require">;
const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";

/**
 * In Crockford's alphabet of 32, which leaves out letters that look alike. The first group is in capitals where the
 * settings ask for some; a password without a digit or a letter, one in ten thousand, is made again.
 */
function readablePassword(settings: PasswordSettings): string {
  const { min_length, require } = settings;
  const count = Math.max(FEWEST_GROUPS, Math.ceil((min_length + 1) / (LETTERS_IN_GROUP + 1)));
  const letters = [...systemRandom.bytes(count * LETTERS_IN_GROUP)].map((byte) => ALPHABET[byte % ALPHABET.length]);
  const groups = Array.from({ length: count }, (_, index) =>
    letters.slice(index * LETTERS_IN_GROUP, (index + 1) * LETTERS_IN_GROUP).join(""),
  );
  if (require.includes("upper")) groups[0] = groups[0]?.toUpperCase() ?? "";
  const password = groups.join("-");
  const isComplete =
    /\d/.test(password) && /[a-z]/.test(password) && (!require.includes("upper") || /[A-Z]/.test(password));
  return isComplete ? password : readablePassword(settings);
}

async function resetAdmin(deps: UserDeps, admin: Administrator): Promise<UserView> {
  const user = await findUserByAny(deps, admin.username);
  return setPassword(deps, user.id, admin.password, { actor: { kind: "operator" } });
}

/** The password is on the screen before it is recorded that it was shown: a run cut off in between makes another. */
function showCredentials({ io }: CommandContext, username: string, password: string): void {
  io.note(`\n  ${bold(io, "Administrator")}  ${username}\n  ${bold(io, "Password")}       ${password}\n`);
  io.note(dim(io, `  It is shown this once. Change it with: primer users set-password ${username}\n\n`));
}

interface Done {
  readonly files: boolean;
  readonly migrations: readonly string[];
  readonly keyCreated: boolean;
  readonly administrator: UserView | undefined;
  readonly shownPassword: string | null;
}

function describe(home: string, { files, migrations, keyCreated, administrator, shownPassword }: Done): Outcome {
  const changed = files || keyCreated || administrator !== undefined || migrations.length > 0;
  if (!changed) {
    return {
      json: { home, changed },
      text: `${home} is initialised already; nothing was changed. (--force replaces the settings and never a key.)\n`,
    };
  }
  const done = [
    files ? "settings written" : "",
    migrations.length > 0 ? `applied ${migrations.join(", ")}` : "",
    keyCreated ? "signing key made" : "",
    administrator ? `administrator ${administrator.username} <${administrator.email}>` : "",
  ].filter((part) => part !== "");
  const { id, username, email } = administrator ?? {};
  const admin = administrator ? { id, username, email, password: shownPassword } : null;
  return {
    json: { home, changed, settings_written: files, migrations, key_created: keyCreated, admin },
    text: `Initialised ${home}: ${done.join(", ")}.\nNext: primer serve\n`,
  };
}

/** A weak password, too, is found out before anything is written. */
async function assertStrong({ settings }: LoadedSettings, administrator: Administrator): Promise<void> {
  const reasons = await weaknessesOf(settings, administrator.password, administrator);
  if (reasons.length === 0) return;
  throw misused(`The administrator's password cannot be used: ${reasons.map(({ message }) => message).join("; ")}.`);
}
