import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { createClient } from "../../../server/features/clients/service.ts";
import { assertRoom, takeRoom } from "../../../server/features/protection/service.ts";
import { type HttpApp, openHttpApp, openListeningApp } from "../support/http-app.ts";
import { basicOf, type Credentials, FORM, introspect, revoke } from "../support/oauth.ts";
import { replaceDeps } from "../support/observe.ts";

const HOUR = 3_600_000;
const BY = { actor: { kind: "operator" } } as const;
const LIMITS = { PRIMER_RATE_LIMITS__INTROSPECT_FAILED: "5/1m", PRIMER_RATE_LIMITS__CLIENT_FAILED: "3/1m" };

let app: HttpApp;
let client: Credentials;
async function use(opened: HttpApp): Promise<void> {
  app = opened;
  await app.createUser({ username: "ada" });
  client = await createClient(app.deps, { name: "orders" }, BY);
}
beforeAll(async () => use(await openHttpApp(LIMITS)));
afterAll(() => app.close());
/** What was counted before has left every window. */
beforeEach(() => app.clock.advance(HOUR));

const wrong = (headers: Record<string, string> = {}) =>
  app.request("POST", "/oauth2/introspect", {
    body: "token=x",
    headers: { "content-type": FORM, ...headers, authorization: basicOf({ ...client, client_secret: "wrong" }) },
  });
const statuses = async (count: number, call: () => Promise<{ status: number }>) => {
  const seen: number[] = [];
  for (let index = 0; index < count; index++) seen.push((await call()).status);
  return seen;
};

describe("limits on failed answers", () => {
  // Scanning for tokens is slowed down, and whoever waits as long as they were told goes on.
  test("tokens that are not good, by client", async () => {
    const { access_token } = await app.login("ada");
    expect(await statuses(5, () => introspect(app, client, "x"))).toEqual([200, 200, 200, 200, 200]);
    const refused = await introspect(app, client, access_token);
    expect({ status: refused.status, error: refused.body.error }).toEqual({
      status: 429,
      error: "rate_limit_exceeded",
    });
    expect(refused.headers.get("retry-after")).toBe("60");
    app.clock.advance(59_000);
    expect((await introspect(app, client, access_token)).headers.get("retry-after")).toBe("1");
    app.clock.advance(1000);
    expect((await introspect(app, client, access_token)).body.active).toBe(true);
  });

  // Good tokens cost nothing, and one client's failures are not another's.
  test("good tokens, and another client", async () => {
    const { access_token } = await app.login("ada");
    const other = await createClient(app.deps, { name: "other" }, BY);
    expect(new Set(await statuses(20, () => introspect(app, client, access_token)))).toEqual(new Set([200]));
    await statuses(6, () => introspect(app, client, "x"));
    expect((await introspect(app, client, "x")).status).toBe(429);
    expect((await introspect(app, other, "x")).status).toBe(200);
  });

  test("revocations of what names no session count, others do not", async () => {
    const sessions = await Promise.all(Array.from({ length: 8 }, () => app.login("ada")));
    const tokens = sessions.map(({ refresh_token }) => refresh_token);
    for (const token of [...tokens, ...tokens]) expect((await revoke(app, client, token)).status).toBe(200);
    expect(await statuses(6, () => revoke(app, client, "x"))).toEqual([200, 200, 200, 200, 200, 429]);
  });

  // Asking for many at the same moment gains nothing: no more answers than the limit.
  test("50 at the same moment", async () => {
    const answers = await Promise.all(Array.from({ length: 50 }, () => introspect(app, client, "x")));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(5);
    expect(answers.filter(({ status }) => status === 429)).toHaveLength(45);
  });

  // Guessing at secrets is slowed down by address; the guesses that are left are not looked at.
  test("failed authentications", async () => {
    expect(await statuses(4, wrong)).toEqual([401, 401, 401, 429]);
    const refused = await introspect(app, client, "x");
    expect(refused.status).toBe(429);
    app.clock.advance(Number(refused.headers.get("retry-after")) * 1000);
    expect((await introspect(app, client, "x")).status).toBe(200);
  });

  // Room that was seen while the last of it was taken is not believed in.
  test("a look and a failure at the same moment", async () => {
    const { deps } = app;
    const take = () => takeRoom(deps, "introspect_failed", "somebody");
    const look = () => assertRoom(deps, "introspect_failed", "somebody");
    for (let count = 0; count < 4; count++) await take();
    await Promise.all([look(), take()]);
    const refused = await look().catch((error) => error.errorCode);
    expect(refused).toBe("RATE_LIMIT_EXCEEDED");
  });

  // What other processes counted is missed for a second at most, and only by whoever had room until then.
  test("what another process has counted", async () => {
    const { access_token } = await app.login("ada");
    expect((await introspect(app, client, access_token)).body.active).toBe(true);
    const rate = app.deps.settings.rate_limits.introspect_failed;
    if (rate === null) throw new Error("The limit is off");
    const check = { key: `introspect_failed:${client.id}`, rate };
    for (let count = 0; count < rate.limit; count++) await app.deps.limiter.take([check]);
    expect((await introspect(app, client, access_token)).status).toBe(200);
    // What is not good is counted by all together, and told so at once.
    expect((await introspect(app, client, "x")).status).toBe(429);
    expect((await introspect(app, client, access_token)).status).toBe(429);
    app.clock.advance(60_000);
    expect((await introspect(app, client, access_token)).status).toBe(200);
    for (let count = 0; count < rate.limit; count++) await app.deps.limiter.take([check]);
    app.clock.advance(1000);
    expect((await introspect(app, client, access_token)).status).toBe(429);
  });

  test("off", async () => {
    const { settings } = app.deps;
    const rate_limits = { ...settings.rate_limits, introspect_failed: null, client_failed: null };
    const restore = replaceDeps(app.deps, { settings: { ...settings, rate_limits } });
    expect(new Set(await statuses(30, wrong))).toEqual(new Set([401]));
    expect(new Set(await statuses(30, () => introspect(app, client, "x")))).toEqual(new Set([200]));
    restore();
  });

  // By the client's address, which only a trusted proxy may tell.
  test("each address by itself", async () => {
    await app.close();
    await use(await openListeningApp({ ...LIMITS, PRIMER_SERVER__TRUSTED_PROXIES: "127.0.0.1" }));
    const from = (address: string) => () => wrong({ "x-forwarded-for": address });
    expect(await statuses(4, from("192.0.2.1"))).toEqual([401, 401, 401, 429]);
    expect(await statuses(1, from("192.0.2.2"))).toEqual([401]);
    expect((await introspect(app, client, "x")).status).toBe(200);
  });
});
