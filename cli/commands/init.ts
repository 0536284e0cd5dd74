import { existsSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import { codeOf, failed, misused, textOf } from "../../config/errors.ts";
import { type LoadedSettings, loadSettings, readSecretsFile, SECRETS_FILE, SETTINGS_FILE } from "../../config/load.ts";
import { renderSecretsFile, renderSettingsFile } from "../../config/render.ts";
import { SETTING_LIST } from "../../config/schema.ts";
import { generateSecret } from "../../config/secrets.ts";
import type { Database } from "../../db/database.ts";
import { migrate } from "../../db/migrate.ts";
import { findInstallation } from "../../db/queries/installation.ts";
import { type Administrator, finishInitialising, initialise } from "../../server/features/installation/service.ts";
import { assertPasswordAllowed } from "../../server/features/passwords/service.ts";
import { setPassword, type UserView } from "../../server/features/users/service.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { systemRandom } from "../../server/ports/random.ts";
import type { CommandContext, Outcome } from "../command.ts";
import { writePrivateFile } from "../files.ts";
import { bold, dim } from "../io.ts";
import { servicesOn } from "../workspace.ts";

export { askInit as ask } from "./init-wizard.ts";

/** Which flag sets which setting. */
const FLAG_SETTINGS: Readonly<Record<string, string>> = {
  environment: "environment",
  publicUrl: "server.public_url",
  databaseUrl: "database.url",
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
  const password = options.adminPasswordStdin
    ? (await io.input()).replace(/\r?\n$/, "")
    : stringOption(options.adminPassword);
  const flags = flagSettings(options);
  const loaded = loadSettings(home, context.environment, flags);
  if (password !== undefined) explainWeakness(() => assertPasswordAllowed(loaded.settings, password));

  const setUp = async (database: Database): Promise<Outcome> => {
    await refuseForeignDatabase(database, home, context);
    const finished = await isFinished(database);
    const replace = !finished || Boolean(options.force);
    const complete = writeFiles(home, context, loaded, flags, replace);
    const migrated = await migrate(database, systemClock.now);
    return servicesOn(complete, database, async (deps) => {
      const admin = administratorOf(context, complete, password);
      if (!finished) io.note(dim(io, `Making a signing key (${signatureOf(complete)}); this takes some seconds.\n`));
      const { keyCreated, administrator } = await initialise(deps, async () => admin);
      const changed =
        administrator ?? (options.force && password !== undefined ? await resetAdmin(deps, admin) : undefined);
      const outcome = describe(context, { changed, admin, generated: password === undefined, migrated, keyCreated });
      if (administrator) {
        showCredentials(context, admin, password === undefined);
        await finishInitialising(deps);
      }
      return outcome;
    });
  };
  return context.workspace.withDatabase(loaded.settings, setUp, { create: true });
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

async function isFinished(database: Database): Promise<boolean> {
  const [row] = await database.query<{ found: string | null }>("SELECT to_regclass('installation')::text AS found");
  return row?.found ? Boolean((await findInstallation(database.orm))?.initialisedAt) : false;
}

/** Where the database is somebody's already and this home has no secrets, making new ones would lock it. */
async function refuseForeignDatabase(database: Database, home: string, context: CommandContext): Promise<void> {
  const [row] = await database.query<{ found: string | null }>("SELECT to_regclass('installation')::text AS found");
  const installed = row?.found ? await findInstallation(database.orm) : undefined;
  const hasSecrets = existsSync(join(home, SECRETS_FILE)) || context.environment.PRIMER_MASTER_KEY !== undefined;
  if (!installed || hasSecrets || context.environment.PRIMER_MASTER_KEY_FILE !== undefined) return;
  throw misused(
    `The database at ${database.address} is sealed with master key ${installed.masterKeyId}, and ${home} has no ${SECRETS_FILE}.`,
    `Copy ${SECRETS_FILE} from the home that this database was set up from, or from its backup. Nothing was changed.`,
  );
}

/** Writes primer.toml and secrets.env where they are missing or to be replaced. Secrets that are there always stay. */
function writeFiles(
  home: string,
  context: CommandContext,
  loaded: LoadedSettings,
  flags: Readonly<Record<string, unknown>>,
  replace: boolean,
): LoadedSettings {
  const written = new Map([...loaded.resolved].filter(([key, { origin }]) => key in flags || origin === SETTINGS_FILE));
  const values = Object.fromEntries([...written].map(([key, { raw }]) => [key, typed(raw)]));
  const secrets = readSecretsFile(home);
  const made = {
    PRIMER_MASTER_KEY: secrets.PRIMER_MASTER_KEY ?? generateSecret(systemRandom.bytes),
    PRIMER_PEPPER: secrets.PRIMER_PEPPER ?? generateSecret(systemRandom.bytes),
  };
  const urls = SETTING_LIST.filter((entry) => entry.secret && entry.alias && flags[entry.key] !== undefined);
  const named = Object.fromEntries(urls.map((entry) => [entry.alias ?? entry.variable, String(flags[entry.key])]));
  try {
    if (replace || !existsSync(join(home, SECRETS_FILE))) {
      writePrivateFile(join(home, SECRETS_FILE), renderSecretsFile({ ...secrets, ...named, ...made }));
    }
    if (replace || !existsSync(join(home, SETTINGS_FILE))) {
      writePrivateFile(join(home, SETTINGS_FILE), renderSettingsFile(loaded.settings.environment, values));
    }
  } catch (error) {
    throw cannotWrite(home, error);
  }
  return loadSettings(home, context.environment, replace ? flags : {});
}

/** A flag's text as the TOML value it stands for. */
const typed = (raw: unknown) => (typeof raw === "string" && /^\d+$/.test(raw) ? Number(raw) : raw);

const cannotWrite = (home: string, error: unknown) =>
  failed(
    `${home} cannot be written: ${codeOf(error) === "ENOSPC" ? "the disk is full" : textOf(error)}`,
    "Free some space or choose another home with --dir, then run `primer init` again: it goes on where it stopped.",
    error,
  );

function administratorOf(
  context: CommandContext,
  { settings }: LoadedSettings,
  password: string | undefined,
): Administrator {
  const username = stringOption(context.options.adminUsername) ?? "admin";
  const { hostname } = new URL(settings.server.public_url);
  const email =
    stringOption(context.options.adminEmail) ?? `${username}@${isIP(hostname) === 0 ? hostname : "localhost"}`;
  return { username, email, password: password ?? readablePassword() };
}

/** 125 bits in five groups, in Crockford's alphabet of 32, which leaves out letters that look alike. */
function readablePassword(): string {
  const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";
  const letters = [...systemRandom.bytes(25)].map((byte) => alphabet[byte % alphabet.length]);
  return [0, 5, 10, 15, 20].map((start) => letters.slice(start, start + 5).join("")).join("-");
}

async function resetAdmin(deps: Parameters<typeof setPassword>[0], admin: Administrator): Promise<UserView> {
  const { findUserByAny } = await import("../../server/features/users/service.ts");
  const user = await findUserByAny(deps, admin.username);
  return setPassword(deps, user.id, admin.password, { actor: { kind: "operator" } });
}

/** The password is on the screen before it is recorded that it was shown: a run cut off in between repeats it. */
function showCredentials({ io }: CommandContext, admin: Administrator, generated: boolean): void {
  if (!generated) return;
  io.note(`\n  ${bold(io, "Administrator")}  ${admin.username}\n  ${bold(io, "Password")}       ${admin.password}\n`);
  io.note(dim(io, "  It is shown this once. Change it with: primer users set-password\n\n"));
}

interface Done {
  readonly changed: UserView | undefined;
  readonly admin: Administrator;
  readonly generated: boolean;
  readonly migrated: readonly string[];
  readonly keyCreated: boolean;
}

function describe({ home }: CommandContext, done: Done): Outcome {
  const { changed, admin, generated } = done;
  if (!changed) {
    return {
      json: { home, changed: false },
      text: `${home} is initialised already; nothing was changed. (--force replaces the settings and never a key.)\n`,
    };
  }
  const json = {
    home,
    changed: true,
    migrations: done.migrated,
    key_created: done.keyCreated,
    admin: {
      id: changed.id,
      username: changed.username,
      email: changed.email,
      password: generated ? admin.password : null,
    },
  };
  const text = `Initialised ${home}.\n  Administrator ${changed.username} <${changed.email}>\nNext: primer serve\n`;
  return { json, text };
}

function explainWeakness(check: () => void): void {
  try {
    check();
  } catch (error) {
    const reasons = (error as { details?: { reasons?: { message: string }[] } }).details?.reasons ?? [];
    throw misused(`The administrator's password cannot be used: ${reasons.map(({ message }) => message).join("; ")}.`);
  }
}
