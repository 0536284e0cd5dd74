import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { misused, textOf } from "../config/errors.ts";
import { readSecretsFile, SECRET_VARIABLES, SECRETS_FILE, SETTINGS_FILE } from "../config/load.ts";
import { renderSecretsFile } from "../config/render.ts";
import type { Options } from "./command.ts";
import { writePrivateFile } from "./files.ts";

/** What says that the embedded database is meant, whatever DATABASE_URL the copied secrets.env names. */
const EMBEDDED = "embedded";
const DATABASE_VARIABLES = ["DATABASE_URL", "PRIMER_DATABASE__URL"];

/** The files of the home as a restore leaves them, in a folder beside them until the moment comes. */
export interface StagedFiles {
  readonly folder: string;
  /** Raw settings from the command line by dotted key. */
  readonly flags: Readonly<Record<string, unknown>>;
  /** The settings of the backup, where the home has none of its own. */
  addSettings(text: string | null): void;
  /** Puts them into the home. */
  keep(): void;
  remove(): void;
}

/**
 * A home's own primer.toml stays. Its secrets.env gets the keys of --secrets in front of its own: the old database and
 * the new one both open with it, so that a restore may be cut off anywhere.
 *
 * @throws OperatorError (exit 2) where --secrets cannot be read
 */
export function stageFiles(home: string, options: Options): StagedFiles {
  const folder = join(home, "restore.new");
  const remove = () => rmSync(folder, { recursive: true, force: true });
  const [secrets, settings] = [join(folder, SECRETS_FILE), join(folder, SETTINGS_FILE)];
  const given = typeof options.secrets === "string" ? readSecretsAt(options.secrets) : {};
  const url = typeof options.databaseUrl === "string" ? options.databaseUrl : undefined;
  const variables = merged(given, readSecretsFile(home), url);
  const hasSecrets = Object.keys(variables).length > 0;
  remove();
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (hasSecrets) writePrivateFile(secrets, renderSecretsFile(variables));
  if (existsSync(join(home, SETTINGS_FILE))) copyFileSync(join(home, SETTINGS_FILE), settings);
  return {
    folder,
    flags: url === undefined ? {} : { "database.url": url === EMBEDDED ? "" : url },
    addSettings(text) {
      if (text !== null && !existsSync(settings)) writePrivateFile(settings, text);
    },
    keep() {
      if (hasSecrets) writePrivateFile(join(home, SECRETS_FILE), renderSecretsFile(variables));
      if (existsSync(join(home, SETTINGS_FILE)) || !existsSync(settings)) return;
      writePrivateFile(join(home, SETTINGS_FILE), readFileSync(settings, "utf8"));
    },
    remove,
  };
}

/** The variables in a copy of secrets.env. @throws OperatorError (exit 2) where it cannot be read */
export function readSecretsAt(path: string): Record<string, string> {
  try {
    return parseEnv(readFileSync(path, "utf8")) as Record<string, string>;
  } catch (error) {
    throw misused(
      `The secrets in ${path} cannot be read: ${textOf(error)}`,
      "Give the copy of secrets.env that was kept apart from the backups.",
      error,
    );
  }
}

function merged(
  given: Record<string, string>,
  own: Record<string, string>,
  databaseUrl: string | undefined,
): Record<string, string> {
  const variables: Record<string, string> = { ...given, ...own };
  for (const name of SECRET_VARIABLES) {
    const keys = [given[name], own[name]].flatMap((value) => value?.split(",") ?? []).map((key) => key.trim());
    if (keys.length > 0) variables[name] = [...new Set(keys)].join(",");
  }
  if (databaseUrl === undefined) return variables;
  for (const name of DATABASE_VARIABLES) delete variables[name];
  return databaseUrl === EMBEDDED ? variables : { ...variables, DATABASE_URL: databaseUrl };
}
