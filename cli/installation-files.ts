import { existsSync } from "node:fs";
import { join } from "node:path";
import { codeOf, failed, misused, textOf } from "../config/errors.ts";
import {
  type LoadedSettings,
  loadSettings,
  readSecretsFile,
  SECRET_VARIABLES,
  SECRETS_FILE,
  SETTINGS_FILE,
  type Variables,
} from "../config/load.ts";
import { renderSecretsFile, renderSettingsFile } from "../config/render.ts";
import type { NamedSetting } from "../config/schema.ts";
import { generateSecret, type RandomBytes } from "../config/secrets.ts";
import { writePrivateFile } from "./files.ts";

const MASTER_KEY = "PRIMER_MASTER_KEY";

interface Wanted {
  readonly home: string;
  readonly environment: Variables;
  readonly loaded: LoadedSettings;
  /** Raw settings from the command line by dotted key. */
  readonly flags: Readonly<Record<string, unknown>>;
  /** Whether files that are there are written anew. */
  readonly replace: boolean;
  readonly random: RandomBytes;
}

/**
 * Sees that no secret is missing that a database was set up with: made anew, it would lock every key or password there.
 *
 * @throws OperatorError (exit 2) naming what to put back
 */
export function assertSecretsKept(home: string, { variables }: LoadedSettings, masterKeyId: string): void {
  const missing = SECRET_VARIABLES.filter((name) => !variables[name]);
  if (missing.length === 0) return;
  throw misused(
    `The database was set up with secrets that are not in ${join(home, SECRETS_FILE)}: ${missing.join(", ")} (master key ${masterKeyId}).`,
    `Put back ${SECRETS_FILE} from its backup, or from the node that this database was set up from. Nothing was changed.`,
  );
}

/**
 * Writes primer.toml and secrets.env where they are missing or to be replaced. Secrets that are known already, from the
 * file or the environment, stay what they are; settings that carry secrets go to secrets.env, wherever they came from.
 *
 * @returns the settings as they stand now, and whether a file was written
 * @throws OperatorError (exit 1) where the home cannot be written
 */
export function writeInstallationFiles(wanted: Wanted): { loaded: LoadedSettings; written: boolean } {
  const { home, environment, loaded, flags, replace } = wanted;
  const contents = { [SECRETS_FILE]: secretsText(wanted), [SETTINGS_FILE]: settingsText(wanted) };
  const missing = Object.entries(contents).filter(([name]) => replace || !existsSync(join(home, name)));
  try {
    for (const [name, text] of missing) writePrivateFile(join(home, name), text);
  } catch (error) {
    throw failed(
      `${home} cannot be written: ${codeOf(error) === "ENOSPC" ? "the disk is full" : textOf(error)}`,
      "Free some space or choose another home with --dir, then run `primer init` again: it goes on where it stopped.",
      error,
    );
  }
  if (missing.length === 0) return { loaded, written: false };
  return { loaded: loadSettings(home, environment, flags), written: true };
}

/** What owns the tables is not kept where what serves could read it, unless the operator wrote it there. */
export const ADMIN_URL = "database.admin_url";

/** What the flags and the settings file say, as opposed to the environment and the defaults. */
const statedSettings = ({ loaded, flags }: Wanted) =>
  [...loaded.resolved.values()].filter(
    ({ setting: { key }, origin }) => (key in flags && key !== ADMIN_URL) || origin === SETTINGS_FILE,
  );

function secretsText(wanted: Wanted): string {
  const stated = statedSettings(wanted).filter(({ setting }) => setting.secret);
  const named = stated.map(({ setting, raw }) => [setting.alias ?? setting.variable, String(raw)]);
  const unknown = SECRET_VARIABLES.filter((name) => !wanted.loaded.variables[name]);
  const made = unknown.map((name) => [name, generateSecret(wanted.random)]);
  return renderSecretsFile({ ...readSecretsFile(wanted.home), ...Object.fromEntries([...named, ...made]) });
}

function settingsText(wanted: Wanted): string {
  const stated = statedSettings(wanted).map(({ setting, raw }) => [setting.key, typed(setting, raw)]);
  return renderSettingsFile(wanted.loaded.settings.environment, Object.fromEntries(stated));
}

/** A flag's text as the TOML value it stands for. */
const typed = (setting: NamedSetting, raw: unknown) => (setting.kind.name === "integer" ? Number(raw) : raw);

/**
 * Puts a new master key in front of those in secrets.env. The old ones stay behind it: what they sealed is opened with
 * them, also in backups from before.
 *
 * @throws OperatorError (exit 2) where the key does not come from that file
 */
export function addMasterKey(home: string, environment: Variables, random: RandomBytes): void {
  const path = join(home, SECRETS_FILE);
  const kept = readSecretsFile(home);
  const given = [MASTER_KEY, `${MASTER_KEY}_FILE`].find((name) => environment[name] !== undefined);
  if (given || !kept[MASTER_KEY]) {
    throw misused(
      `The master key comes from ${given ?? "nowhere"} and not from ${path}, so it cannot be changed there.`,
      `Put a new key (32 random bytes in base64url) and a comma before the old one in ${MASTER_KEY}, then run this again.`,
    );
  }
  try {
    writePrivateFile(
      path,
      renderSecretsFile({ ...kept, [MASTER_KEY]: `${generateSecret(random)},${kept[MASTER_KEY]}` }),
    );
  } catch (error) {
    throw failed(`${path} cannot be written: ${textOf(error)}`, "Nothing was changed.", error);
  }
}
