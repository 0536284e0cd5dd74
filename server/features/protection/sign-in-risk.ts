import type { Tx } from "../../../db/database.ts";
import { lookAtRecentLogins, type RecentLogins } from "../../../db/queries/logins.ts";
import type { Baseline } from "../../../db/schema/baselines.ts";
import { networkKey } from "../../address-key.ts";
import type { Caller, Deps } from "../../deps.ts";
import type { Place } from "../../ports/geo.ts";
import { type BaselineSignal, beginHour, HOUR_MS, hourOf, judge } from "./baseline.ts";
import { isImpossibleTravel, LONGEST_JOURNEY_MS } from "./travel.ts";

/** What is unusual about a sign-in, and how much it weighs. */
const WEIGHTS = {
  bad_network: 40,
  new_device: 30,
  new_network: 30,
  failures_before: 20,
  many_failures_before: 50,
  impossible_travel: 50,
  new_hour: 10,
  new_country: 25,
  burst: 20,
  mostly_failures: 20,
} as const;
export type Signal = keyof typeof WEIGHTS;

/** From this score on a sign-in is suspicious, and its owner is asked whether it was them. */
export const SUSPICIOUS = 50;
const SOME_FAILURES = 3;
const MANY_FAILURES = 10;

export interface SignInRisk {
  readonly signals: readonly Signal[];
  readonly score: number;
  readonly suspicious: boolean;
}

/** What is known of a sign-in beside who it is and where from. */
interface SignIn {
  readonly isKnownDevice: boolean;
  /** How many attempts on the account were not right since the last one that was. */
  readonly failures: number;
}

/**
 * How unusual a sign-in is that was right in every respect. The first one of an account is not: there is nothing to
 * compare it with. Nor is one on a known device. That a network is known for attacks counts for both.
 */
export async function assessSignIn(
  tx: Tx,
  deps: Pick<Deps, "clock" | "geo" | "threats">,
  userId: string,
  signIn: SignIn,
  caller: Caller,
): Promise<SignInRisk> {
  const listed: Signal[] = caller.ip !== null && deps.threats.isListed(caller.ip) ? ["bad_network"] : [];
  if (signIn.isKnownDevice) return riskOf(listed);
  const here = caller.ip === null ? undefined : deps.geo.placeOf(caller.ip);
  const now = deps.clock.now().getTime();
  const seen = await lookAtRecentLogins(tx, userId, {
    network: caller.ip === null ? null : networkKey(caller.ip),
    userAgent: caller.userAgent,
    since: here ? new Date(now - LONGEST_JOURNEY_MS) : null,
    hourAgo: new Date(now - HOUR_MS),
  });
  if (seen.count === 0) return riskOf(listed);
  const signals: Signal[] = [...listed];
  if (!seen.userAgent) signals.push("new_device");
  if (caller.ip !== null && !seen.network) signals.push("new_network");
  if (signIn.failures >= MANY_FAILURES) signals.push("many_failures_before");
  else if (signIn.failures >= SOME_FAILURES) signals.push("failures_before");
  if (here && !seen.network && isTooFar(deps, seen.since, here, now)) signals.push("impossible_travel");
  return riskOf([...signals, ...unlikeBefore(seen, here, now)]);
}

function riskOf(signals: readonly Signal[]): SignInRisk {
  const score = signals.reduce((sum, signal) => sum + WEIGHTS[signal], 0);
  return { signals, score, suspicious: score >= SUSPICIOUS };
}

/** Whether the last hour of a baseline is the one before at the most: what happened then is not usual yet. */
const isJustNow = ({ hour }: Baseline, now: number) => now - hour.begin < 2 * HOUR_MS;

/** What is unlike what was learnt of the account, and whether its network does little else now than fail. */
function unlikeBefore(seen: RecentLogins, here: Place | undefined, now: number): readonly BaselineSignal[] {
  const { ofAccount, ofNetwork } = seen;
  const begin = hourOf(now);
  const signals = new Set<BaselineSignal>();
  if (ofAccount) {
    const { usual, hour } = isJustNow(ofAccount, now) ? ofAccount : beginHour(ofAccount, begin);
    // From where they were before nobody is in a new country, whatever the file says of it today.
    const countries = here?.country !== undefined && !seen.network ? { [here.country]: 1 } : {};
    const attempts = { begin, good: seen.lastHour + 1, failed: hour.failed, countries };
    for (const signal of judge("account", usual, attempts)) signals.add(signal);
  }
  if (ofNetwork && isJustNow(ofNetwork, now)) {
    const { usual, hour } = ofNetwork;
    if (judge("network", usual, hour).includes("mostly_failures")) signals.add("mostly_failures");
  }
  return [...signals];
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
