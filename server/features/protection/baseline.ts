import type { Baseline, HourOfSignIns, Usual } from "../../../db/schema/baselines.ts";

export const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const HALF_LIFE_MS = 30 * DAY_MS;

/** Less than this says nothing of what is usual. */
const ENOUGH_GOOD = 20;
const ENOUGH_MS = 7 * DAY_MS;
/** One hour teaches as much as so many attempts: whoever guesses for a night has not made that usual by the morning. */
const MOST_TAUGHT = 20;
/** Of so many times as much as was ever seen in an hour, the baseline learns so much at once. */
const GROWTH = 2;
/** An hour of the day is new where fewer than one good sign-in in a hundred was within an hour of it. */
const RARE = 0.01;
const TIMES_BUSIEST = 4;
const MOSTLY = 0.8;
const ABOVE_USUAL = 0.2;
const MOST_COUNTRIES = 20;
const FORGOTTEN = 0.05;

/** Whose baseline it is decides how much is little. */
export const FLOORS = {
  account: { burst: 10, failed: 10 },
  network: { burst: 30, failed: 20 },
} as const;
export type BaselineKind = keyof typeof FLOORS;

/** What is unlike before. */
export const BASELINE_SIGNALS = ["new_hour", "new_country", "burst", "mostly_failures"] as const;
export type BaselineSignal = (typeof BASELINE_SIGNALS)[number];

/** What an hour of sign-ins weighs. As with one sign-in, from 50 on it is suspicious. */
export const HOUR_WEIGHTS: Readonly<Record<BaselineSignal, number>> = {
  new_hour: 10,
  new_country: 25,
  burst: 30,
  mostly_failures: 50,
};

/** What happened to an account or from a network within an hour. */
export type Attempts = Pick<HourOfSignIns, "begin" | "good" | "failed" | "countries">;

export const hourOf = (time: number): number => Math.floor(time / HOUR_MS) * HOUR_MS;

const emptyHour = (begin: number): HourOfSignIns => ({
  begin,
  good: 0,
  failed: 0,
  countries: {},
  score: 0,
  signals: [],
  told: false,
});

/** Of somebody or something that was never seen before. */
export const newBaseline = (begin: number): Baseline => ({
  usual: { since: begin, asOf: begin, good: 0, failed: 0, busiest: 0, hours: Array(24).fill(0), countries: {} },
  hour: emptyHour(begin),
});

/** A baseline with more attempts in it, of its last hour or of a later one. */
export function learn(baseline: Baseline, attempts: Attempts): Baseline {
  const { usual, hour } = beginHour(baseline, attempts.begin);
  const countries = { ...hour.countries };
  for (const [country, count] of Object.entries(attempts.countries))
    countries[country] = (countries[country] ?? 0) + count;
  return {
    usual,
    hour: { ...hour, good: hour.good + attempts.good, failed: hour.failed + attempts.failed, countries },
  };
}

/** A baseline as it is in a given hour: what was before it is usual by then. */
export function beginHour(baseline: Baseline, begin: number): Baseline {
  return begin <= baseline.hour.begin ? baseline : { usual: fold(baseline), hour: emptyHour(begin) };
}

function fold({ usual, hour }: Baseline): Usual {
  const kept = 0.5 ** ((hour.begin - usual.asOf) / HALF_LIFE_MS);
  const attempts = hour.good + hour.failed;
  const taught = Math.min(1, MOST_TAUGHT / Math.max(1, attempts));
  const add = (before: number, count: number) => rounded(before * kept + count * taught);
  const busiest = usual.busiest * kept;
  const hourOfDay = new Date(hour.begin).getUTCHours();
  return {
    since: usual.since,
    asOf: hour.begin,
    good: add(usual.good, hour.good),
    failed: add(usual.failed, hour.failed),
    busiest: rounded(Math.max(busiest, Math.min(attempts, GROWTH * Math.max(busiest, FLOORS.account.burst)))),
    hours: usual.hours.map((count, index) => add(count, index === hourOfDay ? hour.good : 0)),
    countries: Object.fromEntries(
      [...new Set([...Object.keys(usual.countries), ...Object.keys(hour.countries)])]
        .map((country) => [country, add(usual.countries[country] ?? 0, hour.countries[country] ?? 0)] as const)
        .filter(([, count]) => count >= FORGOTTEN)
        .sort(([, a], [, b]) => b - a)
        .slice(0, MOST_COUNTRIES),
    ),
  };
}

const rounded = (amount: number) => Math.round(amount * 1000) / 1000;

/** Whether enough is known to call anything unusual. */
const isKnown = (usual: Usual, at: number) => usual.good >= ENOUGH_GOOD && at - usual.since >= ENOUGH_MS;

/**
 * What in an hour's attempts is unlike what was usual before. Nothing is of whoever has no history, but for a network from
 * which nearly nothing but failures comes: that it was never seen before excuses nothing.
 */
export function judge(kind: BaselineKind, usual: Usual, attempts: Attempts): BaselineSignal[] {
  const known = isKnown(usual, attempts.begin);
  if (!known && kind === "account") return [];
  const signals: BaselineSignal[] = [];
  if (known && attempts.good > 0 && isRareHour(usual, new Date(attempts.begin).getUTCHours())) signals.push("new_hour");
  if (known && isNewCountry(usual, Object.keys(attempts.countries))) signals.push("new_country");
  if (known && isBurst(kind, usual, attempts.good + attempts.failed)) signals.push("burst");
  if (isMostlyFailures(kind, known ? usual : undefined, attempts)) signals.push("mostly_failures");
  return signals;
}

/** The hours beside it count half: nobody is there on the dot, and clocks are changed twice a year. */
function isRareHour({ hours, good }: Usual, hour: number): boolean {
  const at = (index: number) => hours[(index + 24) % 24] ?? 0;
  return at(hour) + (at(hour - 1) + at(hour + 1)) / 2 < RARE * good;
}

/** Where nothing is known of where somebody was, no country is new. */
const isNewCountry = ({ countries }: Usual, seen: readonly string[]) =>
  Object.keys(countries).length > 0 && seen.some((country) => !(country in countries));

const isBurst = (kind: BaselineKind, { busiest }: Usual, attempts: number) =>
  attempts >= Math.max(FLOORS[kind].burst, TIMES_BUSIEST * busiest);

/** Without a history there is nothing usual in failing: nor does whoever only ever fails get one. */
function isMostlyFailures(kind: BaselineKind, usual: Usual | undefined, { good, failed }: Attempts): boolean {
  const share = failed / (good + failed);
  const before = usual ? usual.failed / (usual.good + usual.failed) : 0;
  return failed >= FLOORS[kind].failed && share >= MOSTLY && share - before >= ABOVE_USUAL;
}
