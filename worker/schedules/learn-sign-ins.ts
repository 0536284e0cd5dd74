import type { Tx } from "../../db/database.ts";
import {
  type AnomalyRow,
  type KeyedBaseline,
  keepFromErasure,
  type LoginToLearn,
  listAccountBaselines,
  listLoginsToLearn,
  listNetworkBaselines,
  lockBaselineCursor,
  moveBaselineCursor,
  upsertAccountBaselines,
  upsertAnomalies,
  upsertNetworkBaselines,
} from "../../db/queries/baselines.ts";
import type { Baseline, HourOfSignIns } from "../../db/schema/baselines.ts";
import { networkKey } from "../../server/address-key.ts";
import { audit } from "../../server/features/audit/service.ts";
import {
  type Attempts,
  type BaselineKind,
  type BaselineSignal,
  HOUR_WEIGHTS,
  hourOf,
  judge,
  learn,
  newBaseline,
  SUSPICIOUS,
} from "../../server/features/protection/service.ts";
import type { Details, ScheduleDeps, ScheduledRun } from "../schedule.ts";

const DAY_MS = 86_400_000;
/** The first run begins with what happened this long ago. */
const FIRST_MS = 30 * DAY_MS;
/** A login is dated when its transaction begins, by its node's clock: one that commits later than this is not learnt from. */
const SETTLED_MS = 60_000;
/** What is found longer after it happened is kept and reported, and not put into the audit log as news. */
const NEWS_MS = DAY_MS;
/** Records of one transaction, which on the embedded database everybody waits for. */
const BATCH = 500;
const MAX_BATCHES = 400;
const LEAST_PAUSE_MS = 10;

/** What comes after the right password, and leads to nothing for another reason, is no guess. */
const GUESSES: ReadonlySet<string> = new Set(["unknown_account", "no_password", "wrong_password", "locked"]);

/**
 * Learns from the login records since the last run what is usual of each account and each network, and writes down the
 * hours that are not. Each record counts exactly once, whichever workers run and wherever one dies; a run takes as many
 * as it has time for, and the next one goes on from there.
 */
export async function learnSignIns(deps: ScheduleDeps, { signal }: ScheduledRun): Promise<Details> {
  let [learnt, anomalies] = [0, 0];
  for (let batch = 0; batch < MAX_BATCHES; batch++) {
    signal.throwIfAborted();
    const began = performance.now();
    const done = await deps.db.transaction((tx) => learnBatch(tx, deps));
    learnt += done.learnt;
    for (const { kind, fresh } of done.found) {
      if (fresh.length > 0) anomalies++;
      for (const one of fresh) deps.metrics?.count("primer_unusual_hours_total", { of: kind, signal: one });
    }
    if (done.learnt < BATCH) break;
    await deps.clock.sleep(Math.max(LEAST_PAUSE_MS, performance.now() - began));
  }
  return { learnt, anomalies };
}

async function learnBatch(tx: Tx, deps: ScheduleDeps): Promise<{ learnt: number; found: readonly Found[] }> {
  const now = deps.clock.now().getTime();
  const cursor = await lockBaselineCursor(tx, new Date(now - FIRST_MS));
  const records = await listLoginsToLearn(tx, cursor, new Date(now - SETTLED_MS), BATCH);
  const last = records.at(-1);
  if (!last) return { learnt: 0, found: [] };
  const countryOf = ({ ip }: LoginToLearn) => (ip === null ? undefined : deps.geo?.placeOf(ip)?.country);
  const byUser = gather(records, ({ userId }) => userId, countryOf);
  const byNetwork = gather(
    records,
    ({ ip }) => ip && networkKey(ip),
    () => undefined,
  );
  const users = new Set(await keepFromErasure(tx, [...byUser.keys()]));
  for (const id of byUser.keys()) if (!users.has(id)) byUser.delete(id);
  const accounts = apply("account", byUser, await listAccountBaselines(tx, [...byUser.keys()]));
  const networks = apply("network", byNetwork, await listNetworkBaselines(tx, [...byNetwork.keys()]));
  await upsertAccountBaselines(tx, accounts.baselines);
  await upsertNetworkBaselines(tx, networks.baselines);
  const found = [...accounts.found, ...networks.found];
  await upsertAnomalies(
    tx,
    found.map((one) => rowOf(deps, one)),
  );
  for (const one of found) if (one.isNews && one.hour.begin >= now - NEWS_MS) await tell(tx, deps, one);
  await moveBaselineCursor(tx, { time: last.createdAt, loginId: last.id });
  return { learnt: records.length, found };
}

/** What happened to one account or from one network in one hour, with what the logins themselves found unusual. */
interface Gathered extends Attempts {
  good: number;
  failed: number;
  readonly countries: Record<string, number>;
  score: number;
  readonly signals: Set<string>;
}

/** The records by whom they are of and by hour; they come in the order of time, and so do the hours. */
function gather(
  records: readonly LoginToLearn[],
  keyOf: (record: LoginToLearn) => string | null,
  countryOf: (record: LoginToLearn) => string | undefined,
): Map<string, Gathered[]> {
  const all = new Map<string, Gathered[]>();
  for (const record of records) {
    const key = keyOf(record);
    const isGood = record.outcome === "success";
    if (key === null || !(isGood || GUESSES.has(record.reason))) continue;
    const begin = hourOf(record.createdAt.getTime());
    const hours = all.get(key) ?? [];
    all.set(key, hours);
    if (hours.at(-1)?.begin !== begin)
      hours.push({ begin, good: 0, failed: 0, countries: {}, score: 0, signals: new Set() });
    const hour = hours.at(-1) as Gathered;
    hour[isGood ? "good" : "failed"]++;
    const country = isGood ? countryOf(record) : undefined;
    if (country !== undefined) hour.countries[country] = (hour.countries[country] ?? 0) + 1;
    hour.score = Math.max(hour.score, record.riskScore ?? 0);
    for (const one of record.riskSignals ?? []) hour.signals.add(one);
  }
  return all;
}

/** An hour that is unusual. */
interface Found {
  readonly kind: BaselineKind;
  readonly key: string;
  readonly hour: HourOfSignIns;
  /** What the baseline says of it that it did not say before. */
  readonly fresh: readonly BaselineSignal[];
  /** Whether it has become suspicious by that. */
  readonly isNews: boolean;
}

function apply(
  kind: BaselineKind,
  gathered: ReadonlyMap<string, readonly Gathered[]>,
  known: readonly KeyedBaseline[],
): { baselines: KeyedBaseline[]; found: Found[] } {
  const before = new Map(known.map(({ key, baseline }) => [key, baseline]));
  const found: Found[] = [];
  const baselines = [...gathered].map(([key, hours]) => {
    let baseline = before.get(key) ?? newBaseline(hours[0]?.begin ?? 0);
    for (const hour of hours) {
      if (hour.begin < baseline.hour.begin) continue; // never, unless the cursor was set back by hand
      const taken = take(kind, learn(baseline, hour), hour);
      baseline = taken.baseline;
      if (baseline.hour.score > 0) found.push({ kind, key, hour: baseline.hour, ...taken });
    }
    return { key, baseline };
  });
  return { baselines, found };
}

/** Scores the hour that a baseline is in. What the login has said already is in its score, and no news. */
function take(
  kind: BaselineKind,
  { usual, hour }: Baseline,
  { score, signals }: Gathered,
): { baseline: Baseline; fresh: readonly BaselineSignal[]; isNews: boolean } {
  const own = judge(kind, usual, hour);
  const ownScore = own.reduce((sum, signal) => sum + HOUR_WEIGHTS[signal], 0);
  const told = hour.told || ownScore >= SUSPICIOUS;
  return {
    baseline: {
      usual,
      hour: {
        ...hour,
        score: Math.max(hour.score, score, ownScore),
        signals: [...new Set([...hour.signals, ...signals, ...own])],
        told,
      },
    },
    fresh: own.filter((signal) => !hour.signals.includes(signal)),
    isNews: told && !hour.told,
  };
}

function rowOf({ clock, random }: ScheduleDeps, { kind, key, hour }: Found): AnomalyRow {
  const { begin, score, signals, good, failed } = hour;
  return {
    id: random.id(clock.now()),
    user_id: kind === "account" ? key : null,
    network: kind === "network" ? key : null,
    hour: new Date(begin).toISOString(),
    score,
    signals,
    good,
    failed,
  };
}

async function tell(tx: Tx, deps: ScheduleDeps, { kind, key, hour }: Found): Promise<void> {
  const { begin, score, signals, good, failed } = hour;
  await audit(tx, deps, {
    action: "sign_ins.anomalous",
    outcome: "success",
    actor: { kind: "system" },
    subject: { kind: kind === "account" ? "user" : "network", id: key },
    details: { hour: new Date(begin).toISOString(), score, signals, good, failed },
  });
}
