import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { misused, textOf } from "../../../config/errors.ts";
import type { Settings } from "../../../config/schema.ts";

/** Whoever has the file may try passphrases for as long as they like. */
const LEAST_CHARACTERS = 16;

const MAKE_ONE = "Make one: openssl rand -base64 32 > FILE; keep it apart from the backups.";

/**
 * The passphrase of backups: the first line of the file named on the command line, or of that in the settings.
 *
 * @throws OperatorError (exit 2) where none is named, or it is too short
 */
export function readPassphrase(named: string | undefined, home: string, { backup }: Settings): string {
  const path = named ?? (backup.key_file === "" ? undefined : resolve(home, backup.key_file));
  if (path === undefined) {
    throw misused(
      "There is no passphrase for the backup.",
      `Give --passphrase-file, or set backup.key_file. ${MAKE_ONE}`,
    );
  }
  let passphrase: string;
  try {
    passphrase = readFileSync(path, "utf8").split(/\r?\n/)[0] ?? "";
  } catch (error) {
    throw misused(`The passphrase in ${path} cannot be read: ${textOf(error)}`, MAKE_ONE, error);
  }
  if (passphrase.length >= LEAST_CHARACTERS) return passphrase;
  throw misused(`The passphrase in ${path} is shorter than ${LEAST_CHARACTERS} characters.`, MAKE_ONE);
}
