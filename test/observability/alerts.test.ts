import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { ALERT_LIST, ALERTS, type AlertName } from "../../grafana/build/alerts.ts";
import { canRun } from "../drills/processes.ts";
import { flush, runVmalert, startVictoria, type Victoria, whyNoVictoria } from "../support/victoria.ts";
import { type Courses, FAULT_AT, fault, HEALTHY, MINUTES, seriesOf, WAYS } from "./courses.ts";
import { expressionOf, RULES } from "./rules.ts";

const DAY = 86_400;
const possible = canRun(whyNoVictoria(), "alerts held against courses of metrics");

interface Scenario {
  readonly name: string;
  /** What differs from an installation that is well; undefined: that metric is not there. */
  readonly differs: Readonly<Record<string, Courses[string] | undefined>>;
  /** The alerts that fire, and no others. */
  readonly fires: readonly AlertName[];
}

const REQUEST = 'http_server_request_duration_seconds_count{method="POST",route="/api/v1/auth/login"';
const SLOW =
  'http_server_request_duration_seconds_bucket{method="GET",route="/api/v1/auth/verify",status="200",le="1"}';
const FAST = SLOW.replace('le="1"', 'le="0.1"');
const [WRONG, RIGHT] = [
  'primer_sign_ins_total{outcome="failure",reason="wrong_password"}',
  'primer_sign_ins_total{outcome="success",reason="password"}',
];

const SCENARIOS: readonly Scenario[] = [
  { name: "well", differs: {}, fires: [] },
  {
    name: "a quiet night with three wrong passwords, one failed request and one mail put off",
    differs: {
      [RIGHT]: (minute) => (minute % 30 === 0 ? 1 : 0),
      [WRONG]: (minute) => (minute > FAULT_AT && minute <= FAULT_AT + 3 && minute % 1 === 0 ? 2 : 0),
      'http_server_request_duration_seconds_count{method="GET",route="/api/v1/auth/verify",status="200"}': 0.2,
      [`${REQUEST},status="503"}`]: (minute) => (minute === FAULT_AT ? 2 : 0),
      'primer_mails_total{outcome="sent"}': 0,
      'primer_mails_total{outcome="deferred"}': (minute) => (minute === FAULT_AT ? 2 : 0),
    },
    fires: [],
  },
  { name: "requests fail", differs: { [`${REQUEST},status="503"}`]: fault(60) }, fires: ["ErrorRateHigh"] },
  { name: "requests are slow", differs: { [FAST]: fault(100, 594), [SLOW]: fault(500, 598) }, fires: ["LatencyHigh"] },
  {
    name: "PostgreSQL away for half a minute",
    differs: {
      'primer_dependency_failures_total{dependency="database"}': (minute) => (minute === FAULT_AT ? 60 : 0),
    },
    fires: ["DatabaseConnectionFailures"],
  },
  {
    name: "PostgreSQL nearly full",
    differs: { 'primer_database_server_connections{state="open"}': fault(90, 20) },
    fires: ["DatabaseConnectionsScarce"],
  },
  {
    name: "a breaker that opens and tries",
    differs: { 'primer_breaker_open{dependency="redis"}': fault(0.5) },
    fires: ["BreakerOpen"],
  },
  {
    name: "a backlog",
    differs: { 'primer_jobs{queue="send-mail",state="waiting"}': fault(1200) },
    fires: ["QueueBacklog"],
  },
  { name: "a dead job", differs: { 'primer_jobs{queue="send-mail",state="dead"}': fault(1) }, fires: ["DeadJobs"] },
  {
    name: "mails are put off",
    differs: { 'primer_mails_total{outcome="sent"}': fault(0, 5), 'primer_mails_total{outcome="deferred"}': fault(5) },
    fires: ["MailsNotSent"],
  },
  {
    name: "a schedule that failed for the first time",
    differs: {
      'primer_schedule_runs_total{schedule="clean-up",outcome="failed"}': (minute) =>
        minute < FAULT_AT ? undefined : minute === FAULT_AT ? 4 : 0,
    },
    fires: ["ScheduleFailed"],
  },
  { name: "somebody guesses", differs: { [WRONG]: fault(30, 3) }, fires: ["SignInFailures"] },
  {
    name: "more logins than can be hashed",
    differs: { primer_hashes_refused_total: fault(60) },
    fires: ["LoginsTurnedAway"],
  },
  {
    name: "made-up tokens",
    differs: { 'primer_tokens_verified_total{issuer="own",outcome="refused"}': fault(120, 12) },
    fires: ["TokenFailures"],
  },
  {
    name: "stolen refresh tokens",
    differs: { 'primer_refreshes_total{outcome="reused"}': fault(2) },
    fires: ["RefreshTokensReused"],
  },
  {
    name: "a limit that is hit",
    differs: { 'primer_limits_hit_total{limit="login_ip",mode="enforce"}': fault(60) },
    fires: ["LimitBreaches"],
  },
  {
    name: "a busy CPU",
    differs: { 'primer_host_cpu_seconds_total{state="idle"}': fault(5, 90) },
    fires: ["CpuHigh"],
  },
  {
    name: "full memory",
    differs: { 'primer_host_memory_bytes{state="used"}': fault(7e9, 4e9) },
    fires: ["MemoryHigh"],
  },
  {
    name: "a disk that fills up",
    differs: { 'primer_host_disk_bytes{state="free"}': fault(19e9, 60e9) },
    fires: ["DiskLow"],
  },
  {
    name: "a replica behind",
    differs: { 'primer_replica_lag_seconds{replica="replica_1"}': fault(45, 0.2) },
    fires: ["ReplicaBehind"],
  },
  {
    name: "a rotation that did not happen",
    differs: { 'primer_key_age_seconds{use="signing"}': fault(93 * DAY, 80 * DAY) },
    fires: ["KeyTooOld"],
  },
  {
    name: "an old key, rotated by hand",
    differs: {
      primer_key_rotation_interval_seconds: undefined,
      'primer_key_age_seconds{use="signing"}': fault(366 * DAY, 100 * DAY),
    },
    fires: ["KeyTooOld"],
  },
  {
    name: "an old refresh key beside signing keys that are rotated",
    differs: { 'primer_key_age_seconds{use="refresh"}': fault(366 * DAY, 100 * DAY) },
    fires: ["KeyTooOld"],
  },
  {
    name: "an old backup",
    differs: { primer_backup_verified_age_seconds: fault(49 * 3600, 20 * 3600) },
    fires: ["BackupTooOld"],
  },
  {
    name: "never a backup",
    differs: {
      primer_backup_verified_age_seconds: undefined,
      primer_installation_age_seconds: fault(49 * 3600, 47 * 3600),
    },
    fires: ["BackupTooOld"],
  },
  {
    name: "a certificate that is not renewed",
    differs: { primer_certificate_expires_seconds: fault(13 * DAY, 40 * DAY) },
    fires: ["CertificateExpires"],
  },
  {
    name: "an audit log that nobody seals",
    differs: { primer_audit_unsealed_age_seconds: fault(400, 2) },
    fires: ["AuditUnsealed"],
  },
  {
    name: "no worker any more",
    differs: { 'primer_info{kind="worker"}': fault(undefined, 1) },
    fires: ["ProcessesGone"],
  },
];

interface Fired {
  readonly alert: AlertName;
  /** The minute of the course in which it began to fire. */
  readonly minute: number;
}

let victoria: Victoria;
const fired = new Map<string, Fired[]>();

/** The name of an environment says which scenario it is, and how its metrics come in. */
const environmentOf = ({ name }: Scenario, way: string) => `${name} (${way})`;

beforeAll(async () => {
  if (!possible) return;
  victoria = await startVictoria();
  const from = new Date(Date.now() - (MINUTES + 10) * 60_000);
  from.setUTCSeconds(0, 0);
  const to = new Date(from.getTime() + MINUTES * 60_000);
  for (const scenario of SCENARIOS) {
    const courses = Object.entries({ ...HEALTHY, ...scenario.differs }).filter(([, course]) => course !== undefined);
    for (const way of Object.keys(WAYS) as (keyof typeof WAYS)[])
      await victoria.write(seriesOf(environmentOf(scenario, way), Object.fromEntries(courses) as Courses, way, from));
  }
  const { exitCode, said } = await runVmalert(
    `-rule=${RULES}`,
    `-datasource.url=${victoria.url}`,
    `-remoteWrite.url=${victoria.url}`,
    `-replay.timeFrom=${from.toISOString()}`,
    `-replay.timeTo=${to.toISOString()}`,
    "-replay.rulesDelay=0",
    "-replay.disableProgressBar",
    "-notifier.blackhole",
  );
  if (exitCode !== 0) throw new Error(said);
  await flush(victoria.url);
  const seen = await victoria.query(`tfirst_over_time(ALERTS{alertstate="firing"}[${MINUTES}m])`, to);
  for (const { labels, value } of seen) {
    const { environment = "", alertname } = labels;
    const minute = (value * 1000 - from.getTime()) / 60_000;
    fired.set(environment, [...(fired.get(environment) ?? []), { alert: alertname as AlertName, minute }]);
  }
}, 60_000);
afterAll(async () => {
  if (possible) await victoria.stop();
});

const minutesOf = (duration: string) =>
  Number.parseInt(duration, 10) * (duration.endsWith("h") ? 60 : duration.endsWith("m") ? 1 : 0);

test.if(possible)("vmalert understands every rule and every template in it", async () => {
  const { exitCode, said } = await runVmalert("-dryRun", `-rule=${RULES}`);
  expect({ exitCode, said }).toEqual({ exitCode: 0, said: "" });
});

test("no alert is without a scenario in which it fires", () => {
  const shown = new Set(SCENARIOS.flatMap(({ fires }) => fires));
  expect(ALERT_LIST.map(([name]) => name).filter((name) => !shown.has(name))).toEqual([]);
});

// An alert that does not fire when it should is none; one that fires when nothing is wrong is switched off by people.
describe("vmalert, over a hundred minutes of metrics", () => {
  for (const way of Object.keys(WAYS)) {
    for (const scenario of SCENARIOS) {
      test.if(possible)(`${way}: ${scenario.name}: ${scenario.fires.join(", ") || "nothing"}`, () => {
        const seen = fired.get(environmentOf(scenario, way)) ?? [];
        expect(seen.map(({ alert }) => alert)).toEqual([...scenario.fires]);
        for (const { alert, minute } of seen) {
          const after = minute - FAULT_AT - minutesOf(ALERTS[alert].for);
          if (after < 0 || after > 20) throw new Error(`${alert} fired ${after} minutes after it was to`);
        }
      });
    }
  }

  test.if(possible)("nothing at all comes in: ProcessesGone", async () => {
    const before = new Date(Date.now() - 10 * DAY * 1000);
    expect(await victoria.query(expressionOf("ProcessesGone"), before)).toEqual([{ labels: {}, value: 1 }]);
  });
});
