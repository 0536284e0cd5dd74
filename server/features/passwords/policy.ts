import type { CharacterClass, Settings } from "../../../config/schema.ts";
import type { Statement, Tx } from "../../../db/database.ts";
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { type AuditEvent, auditStatement } from "../audit/service.ts";
import type { Degradation } from "./breach-check.ts";
import { contextWords, isContextual, type PasswordOwner } from "./context-words.ts";
import { MAX_PASSWORD_BYTES, normalise } from "./normalise.ts";
import { strengthOf } from "./strength.ts";

/** Why a password is refused: a code for programs, a sentence that a person can act on. */
export interface Weakness {
  readonly code:
    | "password_too_short"
    | "password_too_long"
    | "password_class_missing"
    | "password_contextual"
    | "password_breached"
    | "password_guessable"
    | "password_unchanged";
  readonly message: string;
  readonly [detail: string]: unknown;
}

/** That a password may be kept; `degraded` where that was said without the list of breached ones. */
export interface Approval {
  readonly degraded: Degradation | undefined;
}

type PolicySettings = Pick<Settings, "password" | "server" | "tokens">;

const BREACHED: Weakness = {
  code: "password_breached",
  message: "This password is on the lists that attackers try first; choose another one",
};
const CONTEXTUAL: Weakness = {
  code: "password_contextual",
  message: "Leave out your name, your e-mail address and the name of this service",
};
const GUESSABLE: Weakness = {
  code: "password_guessable",
  message: "This is too easy to guess; add a word or two that have nothing to do with the others",
};
const UNCHANGED: Weakness = {
  code: "password_unchanged",
  message: "Others may know this password, which is why it has to be changed; choose another one",
};
const TOO_LONG: Weakness = {
  code: "password_too_long",
  max_bytes: MAX_PASSWORD_BYTES,
  message: `Use at most ${MAX_PASSWORD_BYTES} bytes`,
};

const tooShort = (min: number): Weakness => ({
  code: "password_too_short",
  min,
  message: `Use at least ${min} characters; a few words in a row are easy to remember`,
});

const CLASSES: Readonly<Record<CharacterClass, readonly [name: string, RegExp]>> = {
  letter: ["a letter", /\p{L}/u],
  upper: ["a capital letter", /\p{Lu}/u],
  lower: ["a small letter", /\p{Ll}/u],
  digit: ["a digit", /\p{Nd}/u],
  symbol: ["a sign that is neither letter nor digit", /[^\p{L}\p{M}\p{N}]/u],
};

/**
 * The one password policy, for every place where a password is set; never asked at login. Length counts code points, and
 * no kind of character is asked for unless the settings do (NIST SP 800-63B, section 3.1.1.2).
 *
 * @param owner whose password it is: what is known of them must not make up the password
 * @returns what {@link recordApproval} records in the transaction that keeps the password
 * @throws AppError PASSWORD_TOO_WEAK with `details.reasons`
 */
export async function assertPasswordAllowed(
  deps: Pick<Deps, "settings" | "breachCheck">,
  password: string,
  owner: PasswordOwner,
): Promise<Approval> {
  const reasons = await weaknessesOf(deps.settings, password, owner);
  if (reasons.length > 0) throw tooWeak(reasons);
  const { breached, degraded } = await deps.breachCheck.look(normalise(password));
  if (breached) throw tooWeak([BREACHED]);
  return { degraded };
}

/** The refusal of the password that has to be changed, for whoever has to change it. */
export const unchangedPassword = () => tooWeak([UNCHANGED]);

const tooWeak = (reasons: readonly Weakness[]) => new AppError("PASSWORD_TOO_WEAK", { details: { reasons } });

/** What this process finds wrong with a password by itself, without the list of breached ones; empty where it is good. */
export async function weaknessesOf(
  settings: PolicySettings,
  given: string,
  owner: PasswordOwner,
): Promise<readonly Weakness[]> {
  if (Buffer.byteLength(given) > MAX_PASSWORD_BYTES) return [TOO_LONG];
  const password = normalise(given);
  const words = contextWords(settings, owner);
  const { min_length, min_strength, require } = settings.password;
  const reasons: Weakness[] = [];
  if ([...password].length < min_length) reasons.push(tooShort(min_length));
  const missing = require.filter((name) => !CLASSES[name][1].test(password));
  if (missing.length > 0) reasons.push(classMissing(missing));
  if (isContextual(password, words)) reasons.push(CONTEXTUAL);
  if (reasons.length > 0) return reasons;
  const { common, score } = await strengthOf({ password, words });
  if (common) return [BREACHED];
  return score < min_strength ? [GUESSABLE] : [];
}

const classMissing = (missing: readonly CharacterClass[]): Weakness => ({
  code: "password_class_missing",
  missing,
  message: `Add ${missing.map((name) => CLASSES[name][0]).join(" and ")}`,
});

/** Records, in the transaction that keeps a password, that it was allowed without the list of breached ones. */
export async function recordApproval(...approved: Parameters<typeof approvalRecord>): Promise<void> {
  for (const statement of approvalRecord(...approved)) await statement;
}

/** The same as statements, for whoever sends them with the commit. */
export function approvalRecord(
  tx: Tx,
  deps: Pick<Deps, "clock" | "random">,
  { degraded }: Approval,
  about: Pick<AuditEvent, "actor" | "subject" | "caller">,
): Statement[] {
  if (degraded === undefined) return [];
  const details = { reason: degraded };
  return [auditStatement(tx, deps, { action: "breach_check_degraded", outcome: "failure", details, ...about })];
}
