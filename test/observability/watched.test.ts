import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { METRICS } from "../../config/metrics.ts";
import type { AlertName } from "../../grafana/build/alerts.ts";
import { whyNoPostgres } from "../drills/own-postgres.ts";
import { ADMIN_PASSWORD, type Answer, canRun, FULL, inShort, send, waitFor } from "../drills/processes.ts";
import { whyNoRedis } from "../support/redis.ts";
import { flush, type Pending, whyNoVictoria } from "../support/victoria.ts";
import { queueJobs } from "./faults.ts";
import { BAD_NETWORK, type Installation, type Node, openInstallation, REGISTRATIONS } from "./installation.ts";
import { panelQueries, watchPanels } from "./panels.ts";
import { expressionOf } from "./rules.ts";

const possible = canRun(whyNoVictoria() ?? whyNoPostgres() ?? whyNoRedis(), "a watched installation and its faults");

inShort("nobody comes from a bad network: that takes a quarter of a minute, with TEST_FULL");

/** What this machine is like, which several tests share, says nothing of primer. */
const OF_THE_MACHINE: readonly AlertName[] = ["CpuHigh", "MemoryHigh", "DiskLow", "LatencyHigh"];

let installation: Installation;
let panels: ReturnType<typeof watchPanels>;
const seen = new Map<string, Pending>();
let watching: Timer;

beforeAll(async () => {
  if (!possible) return;
  installation = await openInstallation();
  panels = watchPanels(
    installation.victoria,
    installation.nodes.map(({ environment }) => environment),
  );
  watching = setInterval(async () => {
    await flush(installation.victoria.url);
    for (const alert of await installation.vmalert.alerts())
      seen.set(`${alert.labels.environment} ${alert.name}`, alert);
  }, 300);
}, 90_000);
afterAll(async () => {
  if (!possible) return;
  clearInterval(watching);
  await installation?.remove();
});

const ask = ({ url, ca }: Node, path: string, options: RequestInit = {}): Promise<Answer> =>
  send(url + path, { ...options, ...(ca ? { tls: { ca } } : {}) } as RequestInit);
const post = (node: Node, path: string, body: unknown, token?: string) =>
  ask(node, `/api/v1${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...(token ? { authorization: `Bearer ${token}` } : {}) },
    body: JSON.stringify(body),
  });
const get = (node: Node, path: string, token: string) =>
  ask(node, `/api/v1${path}`, { headers: { authorization: `Bearer ${token}` } });
const login = (node: Node, password = ADMIN_PASSWORD) => post(node, "/auth/login", { username: "admin", password });
const times = async (count: number, work: (index: number) => Promise<unknown>) => {
  for (let index = 0; index < count; index++) await work(index);
};
const sawAlert = ({ environment }: Node, name: AlertName) => seen.has(`${environment} ${name}`);

/** Waits until vmalert has told of all of these in the environments of all of these nodes. */
async function untilAlerts(nodes: readonly Node[], names: readonly AlertName[], meanwhile = async () => {}) {
  const left = () =>
    nodes.flatMap((node) => names.filter((name) => !sawAlert(node, name)).map((name) => `${node.environment} ${name}`));
  const holds = async () => {
    await meanwhile();
    return left().length === 0;
  };
  await waitFor("alerts", holds, 40_000).catch((error) => {
    throw new Error(`${error} Left: ${left().join(", ")}`);
  });
}

/** What people do on a good day. */
async function useWell(node: Node): Promise<void> {
  await times(3, async () => {
    const { access_token, refresh_token } = (await login(node)).body;
    await times(5, () => get(node, "/auth/verify", access_token));
    await get(node, "/users", access_token);
    await post(node, "/auth/step-up", { password: ADMIN_PASSWORD }, access_token);
    const next = (await post(node, "/auth/refresh", { refresh_token })).body;
    await post(node, "/auth/logout", {}, next.access_token);
  });
  await post(node, "/auth/forgot-password", { email: "nobody@example.org" });
}

const OTHER_PASSWORD = "another horse with a battery";
const FAULTS: Readonly<Record<string, (node: Node) => Promise<unknown>>> = {
  "somebody guesses": (node) => times(24, () => login(node, "not the right horse battery")),
  "made-up tokens": (node) => times(60, () => get(node, "/auth/verify", "made.up.token")),
  "refresh tokens used twice": (node) =>
    times(7, async () => {
      const { refresh_token } = (await login(node)).body;
      await post(node, "/auth/refresh", { refresh_token });
      await post(node, "/auth/refresh", { refresh_token });
    }),
  "registrations with addresses that the mail server refuses, until the limit is reached": (node) =>
    times(REGISTRATIONS + 52, (index) => {
      const username = `${node.environment}-${index}`;
      const kind = index % 6 === 0 ? "fine" : index % 6 === 1 ? "later" : "refused";
      const password = "a long password for somebody";
      return post(node, "/auth/register", { username, email: `${kind}-${username}@example.org`, password });
    }),
  "more logins at a time than can be hashed": (node) => Promise.all(Array.from({ length: 120 }, () => login(node))),
  "a path that there is not": (node) => ask(node, "/api/v1/nothing/here"),
};

/** Somebody renames a table for a moment: that is a fault nobody has thought of. */
async function loseTable(nodes: readonly Node[]): Promise<void> {
  const tokens = await Promise.all(nodes.map(async (node) => (await login(node)).body.access_token));
  await installation.query("ALTER TABLE invitations RENAME TO invitations_gone");
  try {
    for (const [index, node] of nodes.entries())
      await waitFor("an internal error", async () => (await get(node, "/invitations", tokens[index])).status === 500);
  } finally {
    await installation.query("ALTER TABLE invitations_gone RENAME TO invitations");
  }
}

const comeFromBadNetwork = (node: Node) =>
  ask(node, "/api/v1/auth/login", {
    method: "POST",
    headers: { "content-type": "application/json", "x-forwarded-for": `${BAD_NETWORK}7` },
    body: JSON.stringify({ username: "admin", password: ADMIN_PASSWORD }),
  });

/** Waits until a metric comes in from both nodes. */
const untilBoth = (metric: string, meanwhile: () => Promise<unknown> = async () => {}) =>
  waitFor(metric, async () => {
    await meanwhile();
    await Bun.sleep(200);
    return (await installation.victoria.query(`group by (environment) (${metric})`)).length === 2;
  });

/** Somebody has a new password, and thinks better of it. */
async function changePassword(node: Node): Promise<void> {
  for (const [current_password, new_password] of [
    [ADMIN_PASSWORD, OTHER_PASSWORD],
    [OTHER_PASSWORD, ADMIN_PASSWORD],
  ]) {
    const { access_token } = (await login(node, current_password)).body;
    const { status } = await ask(node, "/api/v1/users/me/password", {
      method: "PATCH",
      headers: { "content-type": "application/json", authorization: `Bearer ${access_token}` },
      body: JSON.stringify({ current_password, new_password }),
    });
    expect(status).toBe(204);
  }
}

/** What of a fault is seen while its node has a worker. */
const BY_FAULTS: readonly AlertName[] = [
  "SignInFailures",
  "TokenFailures",
  "RefreshTokensReused",
  "LimitBreaches",
  "LoginsTurnedAway",
  "MailsNotSent",
  "DeadJobs",
  "ErrorRateHigh",
];

// Operators learn of what is wrong, by name, and of nothing where nothing is.
describe.if(possible)("a watched installation", () => {
  test("is well: no alert", async () => {
    const { nodes, victoria } = installation;
    await Promise.all(nodes.map(useWell));
    await waitFor("all that was counted", async () => {
      const counted = await victoria.query("sum by (environment) (primer_tokens_issued_total) >= 6");
      return counted.length === nodes.length;
    });
    await Bun.sleep(2000); // vmalert looks each second
    const names = [...seen].filter(([, { name }]) => !OF_THE_MACHINE.includes(name as AlertName)).map(([key]) => key);
    expect(names).toEqual([]);
  }, 60_000);

  test("people, clients and mail servers with faults", async () => {
    const { nodes, query, redis } = installation;
    await query(DUE);
    const workers = await Promise.all(nodes.map((node) => node.startWorker()));
    const goOn = async () => {
      await redis.command("flushall"); // so that some are let in again
      await query(LAST_TRY);
      await Promise.all(nodes.flatMap((node) => [useWell(node), ...Object.values(FAULTS).map((work) => work(node))]));
      await loseTable(nodes);
      await panels.look();
    };
    await untilAlerts(nodes, BY_FAULTS, goOn);
    for (const node of nodes) await changePassword(node);
    if (FULL) await untilBoth("primer_threats_refused_total", () => Promise.all(nodes.map(comeFromBadNetwork)));
    await waitFor("a schedule that failed", () => nodes.some((node) => sawAlert(node, "ScheduleFailed")));
    await panels.look();
    for (const worker of workers) worker.signal("SIGTERM");
    await Promise.all(workers.map(({ finished }) => finished));
  }, 90_000);

  test("old keys, no backup, a certificate that expires, a backlog, and no worker", async () => {
    const { nodes, query, postgres, certify, victoria } = installation;
    await query("UPDATE installation SET initialised_at = now() - interval '3 days'");
    await query("UPDATE signing_keys SET created_at = now() - interval '400 days'");
    await query("UPDATE secret_keys SET created_at = now() - interval '400 days'");
    certify(10);
    await queueJobs(postgres.url, 1100);
    await untilAlerts(nodes, ["KeyTooOld", "BackupTooOld", "QueueBacklog"]);
    await untilAlerts(nodes.slice(1), ["CertificateExpires", "ProcessesGone"]);
    await query(PROVEN_BACKUP);
    await untilBoth("primer_backup_verified_age_seconds");
    // What is sent no more counts for five minutes on.
    const gone = await victoria.query(expressionOf("ProcessesGone"), new Date(Date.now() + 6 * 60_000));
    expect(gone).toContainEqual({ labels: { environment: "development", kind: "worker" }, value: 1 });
  }, 60_000);

  test("PostgreSQL and Redis away", async () => {
    const { nodes, postgres, redis } = installation;
    await Promise.all([postgres.crash(), redis.kill()]);
    const outage: readonly AlertName[] = ["DatabaseConnectionFailures", "BreakerOpen"];
    try {
      await untilAlerts(nodes, outage, async () => {
        await Promise.all(nodes.map((node) => login(node)));
        await panels.look();
      });
    } finally {
      await Promise.all([postgres.start(), redis.start()]);
    }
  }, 60_000);

  test("people read what is wrong, in sentences", () => {
    for (const { name, annotations } of seen.values()) {
      const text = Object.values(annotations).join(" ");
      expect([name, /\{\{|<no value>|VALUE/.test(text) && text]).toEqual([name, false]);
    }
  });

  // A panel without data looks like a fault that is not there, or hides one that is.
  test("every query of every dashboard has had an answer, whichever way metrics come in", async () => {
    expect(panelQueries.length).toBeGreaterThan(80);
    const empty = await panels.look();
    const everywhere = (name: string) => empty.filter((one) => one.endsWith(name)).length === installation.nodes.length;
    const one = [...ONCE, ...RIGHTLY_EMPTY];
    expect(empty.filter((name) => !one.some((part) => name.includes(part)))).toEqual([]);
    const nowhere = panelQueries.map(({ name }) => name).filter(everywhere);
    expect(nowhere.filter((name) => !RIGHTLY_EMPTY.some((part) => name.includes(part)))).toEqual([]);
  }, 30_000);

  test("dashboards find the environments there are", async () => {
    const answer = await fetch(`${installation.victoria.url}/api/v1/label/environment/values?match[]=primer_info`);
    expect(((await answer.json()) as { data: string[] }).data).toEqual(["development", "staging"]);
  });

  test("whatever comes in is in the registry, with its labels; and whatever is in the registry comes in", async () => {
    const answer = await fetch(`${installation.victoria.url}/api/v1/series?match[]={environment!=""}`);
    const { data } = (await answer.json()) as { data: Record<string, string>[] };
    for (const { environment } of installation.nodes) {
      const own = data.filter((series) => series.environment === environment);
      const metrics = new Set(own.map((series) => metricOf(series.__name__ ?? "")));
      expect([...metrics].filter((name) => !(name in METRICS))).toEqual([]);
    }
    const emitted = new Set(data.map((series) => metricOf(series.__name__ ?? "")));
    expect(Object.keys(METRICS).filter((name) => !emitted.has(name))).toEqual([...NOT_EMITTED]);
    expect(data.flatMap(strangeLabels)).toEqual([]);
  });
});

/** As if no worker had been there for long. */
const DUE = `INSERT INTO schedule_runs (name, occurrence, state) VALUES ('activity', '2026-01-01', 'done'), ('backup', '2026-01-01', 'done'), ('threat-lists', '2026-01-01', 'done')
  ON CONFLICT (name) DO UPDATE SET occurrence = '2026-01-01', state = 'done', claimable_at = NULL`;
const PROVEN_BACKUP = `INSERT INTO backups (id, file, taken_at, bytes, rows, verified_at)
  VALUES (gen_random_uuid(), 'yesterday.backup', now() - interval '1 day', 1, 1, now())`;
/** The next try of the backup is the last one. */
const LAST_TRY =
  "UPDATE schedule_runs SET attempt = 3, state = 'retry', claimable_at = now() WHERE name = 'backup' AND state IN ('retry', 'failed')";
/** What is given out by one process of all, or by that which serves https, is seen in one environment alone. */
const ONCE = ["Schedules failed", "Backups, runs", "Schedules, runs", "Lists of bad networks", "Certificate"];
/** Weeks of sign-ins have to be there to compare with, and a week is not waited for. */
const RIGHTLY_EMPTY = ["hour of one {{of}}"];
const NOT_EMITTED = ["primer_unusual_hours_total"];
if (!FULL) {
  RIGHTLY_EMPTY.push("Refused, from bad networks");
  NOT_EMITTED.push("primer_threats_refused_total");
}
const metricOf = (series: string) => series.replace(/(?<=_seconds)_(bucket|count|sum)$/, "");

/** Labels that the registry does not know, and values that it does not list. */
function strangeLabels({ __name__ = "", ...labels }: Record<string, string>): string[] {
  const metric = METRICS[metricOf(__name__) as keyof typeof METRICS];
  const known: Readonly<Record<string, unknown>> = metric?.labels ?? {};
  const common = /^(environment|le|instance|job|(service|telemetry|scope)[._].*)$/;
  return Object.entries(labels).flatMap(([label, value]) => {
    if (!(label in known)) return common.test(label) ? [] : [`${__name__} has the label ${label}`];
    const values = known[label];
    return !Array.isArray(values) || values.includes(value) ? [] : [`${__name__}: ${label} is ${value}`];
  });
}
