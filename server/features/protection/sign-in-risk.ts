import { isIPv4 } from "node:net";
import type { Tx } from "../../../db/database.ts";
import { lookAtRecentLogins } from "../../../db/queries/logins.ts";
import type { Caller } from "../../deps.ts";

/** What is unusual about a sign-in, and how much it weighs. */
const WEIGHTS = { new_device: 30, new_network: 30, failures_before: 20, many_failures_before: 50 } as const;
export type Signal = keyof typeof WEIGHTS;

/** From this score on a sign-in is suspicious, and its owner is asked whether it was them. */
const SUSPICIOUS = 50;
const SOME_FAILURES = 3;
const MANY_FAILURES = 10;

export interface SignInRisk {
  readonly signals: readonly Signal[];
  readonly score: number;
  readonly suspicious: boolean;
}

const NONE: SignInRisk = { signals: [], score: 0, suspicious: false };

/** The network that an address is in: a home's or an office's, as a rule. */
const networkOf = (ip: string) => `${ip}/${isIPv4(ip) ? 24 : 48}`;

/**
 * How unusual a sign-in is that was right in every respect. The first one of an account is not: there is nothing to
 * compare it with. Nor is one on a known device.
 *
 * @param failures how many attempts on the account were not right since the last one that was
 */
export async function assessSignIn(
  tx: Tx,
  userId: string,
  { isKnownDevice, failures }: { readonly isKnownDevice: boolean; readonly failures: number },
  caller: Caller,
): Promise<SignInRisk> {
  if (isKnownDevice) return NONE;
  const network = caller.ip === null ? null : networkOf(caller.ip);
  const seen = await lookAtRecentLogins(tx, userId, { network, userAgent: caller.userAgent });
  if (seen.count === 0) return NONE;
  const signals: Signal[] = [];
  if (!seen.userAgent) signals.push("new_device");
  if (network !== null && !seen.network) signals.push("new_network");
  if (failures >= MANY_FAILURES) signals.push("many_failures_before");
  else if (failures >= SOME_FAILURES) signals.push("failures_before");
  const score = signals.reduce((sum, signal) => sum + WEIGHTS[signal], 0);
  return { signals, score, suspicious: score >= SUSPICIOUS };
}
