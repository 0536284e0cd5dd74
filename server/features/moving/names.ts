import { createHash } from "node:crypto";
import { parseUsername } from "../users/service.ts";

const MAX_LENGTH = 64;
const SUFFIX_LENGTH = 8;

/** What is told of the rule, wherever a name was changed by it. */
export const NAMING_RULE =
  "small letters without accents; every other run of characters than a-z, 0-9, dot, underscore and hyphen becomes a hyphen; where that is too short or taken, a hyphen and eight digits that follow from the user's e-mail address";

/** A name as the rule makes it; empty where nothing is left. */
const simplified = (text: string): string =>
  text
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, "-")
    .replace(/^[^a-z0-9]+|[._-]+$/g, "")
    .slice(0, MAX_LENGTH - SUFFIX_LENGTH - 1);

/**
 * The names that a user may get, the first one that is free: always the same ones for the same user, so that a second run
 * finds whom the first one renamed.
 *
 * @param name the name to begin from: what is before the "@" where it is an address
 */
export function namesFor(name: string, emailKey: string): readonly string[] {
  const base = simplified(name.split("@")[0] ?? "");
  const suffix = createHash("sha256").update(emailKey).digest("hex").slice(0, SUFFIX_LENGTH);
  return [base, `${base === "" ? "user" : base}-${suffix}`].filter((one) => parseUsername(one) === one);
}
