import { isIPv4 } from "node:net";
import type { Tx } from "../../../db/database.ts";
import { lookAtRecentLogins, type RecentLogins } from "../../../db/queries/logins.ts";
import type { Caller, Deps } from "../../deps.ts";
import type { Place } from "../../ports/geo.ts";
import { isImpossibleTravel, LONGEST_JOURNEY_MS } from "./travel.ts";

/** What is unusual about a sign-in, and how much it weighs. */
const WEIGHTS = {
  new_device: 30,
  new_network: 30,
  failures_before: 20,
  many_failures_before: 50,
  impossible_travel: 50,
} as const;
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
  deps: Pick<Deps, "clock" | "geo">,
  userId: string,
  { isKnownDevice, failures }: { readonly isKnownDevice: boolean; readonly failures: number },
  caller: Caller,
): Promise<SignInRisk> {
  if (isKnownDevice) return NONE;
  const network = caller.ip === null ? null : networkOf(caller.ip);
  const here = caller.ip === null ? undefined : deps.geo.placeOf(caller.ip);
  const now = deps.clock.now().getTime();
  const since = here ? new Date(now - LONGEST_JOURNEY_MS) : null;
  const seen = await lookAtRecentLogins(tx, userId, { network, userAgent: caller.userAgent, since });
  if (seen.count === 0) return NONE;
  const signals: Signal[] = [];
  if (!seen.userAgent) signals.push("new_device");
  if (network !== null && !seen.network) signals.push("new_network");
  if (failures >= MANY_FAILURES) signals.push("many_failures_before");
  else if (failures >= SOME_FAILURES) signals.push("failures_before");
  if (here && !seen.network && isTooFar(deps, seen.since, here, now)) signals.push("impossible_travel");
  const score = signals.reduce((sum, signal) => sum + WEIGHTS[signal], 0);
  return { signals, score, suspicious: score >= SUSPICIOUS };
}

/**
 * Whether a sign-in is too far from the last one whose place is known. Asked only of one from a new network: with
 * a VPN, or with a phone beside a laptop, people are in two places all the time, and hear of each of them once.
 */
function isTooFar({ geo }: Pick<Deps, "geo">, before: RecentLogins["since"], here: Place, now: number): boolean {
  for (const { ip, at } of before) {
    const there = geo.placeOf(ip);
    if (there) return isImpossibleTravel(there, here, now - at);
  }
  return false;
}
