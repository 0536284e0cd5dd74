import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readingsOf } from "../../../config/meter.ts";
import { refreshLists } from "../../../server/features/threats/service.ts";
import { PASSWORD } from "../../support/app.ts";
import { type HttpApp, openListeningApp } from "../support/http-app.ts";

const [BAD, BAD6, GOOD] = ["198.51.100.77", "2001:db8:bad::7", "192.0.2.7"];

const home = mkdtempSync(join(tmpdir(), "primer-bad-"));
let app: HttpApp;
beforeAll(async () => {
  writeFileSync(join(home, "bad.txt"), "198.51.100.0/24\n2001:db8:bad::/48\n127.0.0.0/8\n");
  app = await openListeningApp({
    PRIMER_SERVER__TRUSTED_PROXIES: "127.0.0.1",
    PRIMER_THREATS__SOURCES: join(home, "bad.txt"),
  });
  await refreshLists(app.deps, { home, signal: new AbortController().signal });
});
afterAll(async () => {
  await app.close();
  rmSync(home, { recursive: true, force: true });
});

const act = (action: "score" | "refuse") => {
  app.deps.settings = { ...app.deps.settings, threats: { ...app.deps.settings.threats, action } };
};

let made = 0;
const someone = () => app.createUser({ username: `user${made++}` });
const from = (ip: string, path: string, body: object) =>
  app.request("POST", `/api/v1/auth/${path}`, {
    body,
    headers: ip === "127.0.0.1" ? {} : { "x-forwarded-for": ip, "user-agent": "Firefox" },
  });
const logIn = async (username: string, ip: string, more: object = {}) =>
  from(ip, "login", { username, password: PASSWORD, ...more });

// From a network known for attacks nothing can be tried where operators want it so; sessions that are there go on.
describe('threats.action = "refuse"', () => {
  beforeEach(() => act("refuse"));

  const REFUSED: readonly (readonly [string, object, number])[] = [
    ["login", { username: "nobody", password: PASSWORD }, 401],
    ["register", { username: "newcomer", email: "newcomer@example.test", password: "a dozen purple llamas sing" }, 202],
    ["forgot-password", { email: "nobody@example.test" }, 202],
    ["resend-verification", { email: "nobody@example.test" }, 202],
  ];
  test.each(REFUSED)(
    "%s: 403 from a bad network, with an event; as ever from others",
    async (path, body, otherwise) => {
      const action = path.replace("-", "_");
      for (const ip of [BAD, BAD6, `::ffff:${BAD}`]) {
        const answer = await from(ip, path, body);
        expect([answer.status, answer.body.error.code, answer.body.error.details]).toEqual([
          403,
          "FORBIDDEN",
          { reason: "bad_network" },
        ]);
      }
      for (const ip of [GOOD, "127.0.0.1"]) {
        const name = `fresh${made++}`;
        const fresh = path === "register" ? { ...body, username: name, email: `${name}@example.test` } : body;
        expect((await from(ip, path, fresh)).status).toBe(otherwise);
      }
      const events = await app.db.query(
        `SELECT outcome, actor_kind, ip, details FROM audit_log
       WHERE action = 'access.refused' AND details ->> 'action' = $1 ORDER BY id`,
        [action],
      );
      const event = { outcome: "failure", actor_kind: "anonymous", details: { action, reason: "bad_network" } };
      expect(events).toEqual([BAD, BAD6, BAD].map((ip) => ({ ...event, ip })));
      const counted = readingsOf(await app.deps.metrics.collect()).find(
        ({ name }) => name === "primer_threats_refused_total",
      );
      expect(counted?.points.find(({ labels }) => labels.action === action)?.value).toBe(3);
    },
  );

  test("the right password and a known device do not help, and nothing is counted as a guess", async () => {
    const { id, username } = await someone();
    const { device_token } = (await logIn(username, GOOD, { remember_device: true })).body;
    for (let attempt = 0; attempt < 8; attempt++)
      expect((await logIn(username, BAD, attempt % 2 ? { device_token } : { password: "wrong" })).status).toBe(403);
    expect(await app.db.query("SELECT 1 FROM failure_counters WHERE subject LIKE $1", [`%${id}%`])).toEqual([]);
    expect((await logIn(username, GOOD)).status).toBe(200);
  });

  test("a session that is there goes on", async () => {
    const { username } = await someone();
    const { refresh_token } = (await logIn(username, GOOD)).body;
    expect((await from(BAD, "refresh", { refresh_token })).status).toBe(200);
  });
});

describe('threats.action = "score"', () => {
  beforeEach(() => act("score"));
  const risk = async (userId: string) => {
    const [row] = await app.db.query<{ risk_score: number; risk_signals: string[] }>(
      "SELECT risk_score, risk_signals FROM login_records WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1",
      [userId],
    );
    return [row?.risk_score, row?.risk_signals];
  };

  test("a bad network alone is unusual, also on the first sign-in and on a known device", async () => {
    const { id, username } = await someone();
    const { device_token } = (await logIn(username, BAD, { remember_device: true })).body;
    expect(await risk(id)).toEqual([40, ["bad_network"]]);
    app.clock.advance(1000);
    expect((await logIn(username, BAD, { device_token })).status).toBe(200);
    expect(await risk(id)).toEqual([40, ["bad_network"]]);
  });

  test("with a new network it is suspicious, and its owner is told", async () => {
    const { id, username } = await someone();
    await logIn(username, GOOD);
    app.clock.advance(1000);
    expect((await logIn(username, BAD)).status).toBe(200);
    expect(await risk(id)).toEqual([70, ["bad_network", "new_network"]]);
    const [mail] = await app.db.query<{ data: object }>("SELECT data FROM jobs.job WHERE data->>'user_id' = $1", [id]);
    expect(mail?.data).toMatchObject({ template: "suspicious_sign_in", signals: ["bad_network", "new_network"] });
  });
});
