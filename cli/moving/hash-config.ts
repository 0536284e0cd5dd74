import { readFileSync } from "node:fs";
import { misused, textOf } from "../../config/errors.ts";
import type { FirebaseParameters } from "../../server/features/passwords/service.ts";

/**
 * Reads the password hash parameters of a Firebase project, as its console shows them: `hash_config { … }`, or the same
 * as JSON. They are a secret, so they come from a file and never from the command line.
 *
 * @throws OperatorError exit 2, without anything of what stands in the file
 */
export function readHashConfig(path: string): FirebaseParameters {
  const text = readText(path);
  const value = (name: string, form: string) => new RegExp(`"?${name}"?\\s*[:=]\\s*"?(${form})"?`).exec(text)?.[1];
  const bytes = (name: string) => {
    const found = value(name, "[A-Za-z0-9+/_-]+={0,2}");
    return found === undefined ? undefined : Buffer.from(found, "base64");
  };
  const number = (name: string) => Number(value(name, "\\d{1,3}"));
  const signerKey = bytes("base64_signer_key");
  const saltSeparator = bytes("base64_salt_separator");
  const [rounds, memCost] = [number("rounds"), number("mem_cost")];
  if (!signerKey?.length || !saltSeparator || Number.isNaN(rounds) || Number.isNaN(memCost)) {
    throw misused(
      `${path}: expected base64_signer_key, base64_salt_separator, rounds and mem_cost.`,
      "The Firebase console shows them: Authentication, Users, Password hash parameters.",
    );
  }
  return { signerKey, saltSeparator, rounds, memCost };
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw misused(`--hash-config ${path} cannot be read: ${textOf(error)}`, undefined, error);
  }
}
