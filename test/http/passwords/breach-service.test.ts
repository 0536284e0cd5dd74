import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { VERSION } from "../../../config/version.ts";
import { createBreachCheck } from "../../../server/features/passwords/service.ts";
import { setPassword } from "../../../server/features/users/service.ts";
import { until } from "../../cli/support/serve.ts";
import { PASSWORD } from "../../support/app.ts";
import {
  BEHAVIOURS,
  type Behaviour,
  type RangeService,
  sha1Of,
  startRangeService,
} from "../../support/range-service.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { replaceDeps } from "../support/observe.ts";

const LEAKED = "violet tractor nineteen";
const PADDED = "amber tractor seventeen";
const COMPOSED = "grüner traktor neunzehn";
const OPERATOR = { actor: { kind: "operator" } } as const;
/** The password's own deadline is a second; with everything else an answer takes no longer than this. */
const MOST_MS = 1500;

let service: RangeService;
let app: HttpApp;
beforeAll(async () => {
  service = await startRangeService({ [LEAKED]: 3, [PADDED]: 0, [COMPOSED.normalize("NFC")]: 1 });
  app = await openHttpApp({ PRIMER_PASSWORD__HIBP: "online", PRIMER_PASSWORD__HIBP_URL: `${service.url}/` });
});
afterAll(async () => {
  service.stop();
  await app.close();
});
beforeEach(() => {
  service.requests.length = 0;
  service.behaviour = "good";
});

/** A check with a breaker of its own, so that what one test has broken is whole in the next. */
let restore = () => {};
beforeEach(() => {
  const degraded = (reason: string) => app.deps.log.warn("degraded", { event: "breach_check_degraded", reason });
  const settings = () => app.deps.settings.password;
  restore = replaceDeps(app.deps, { breachCheck: createBreachCheck({ settings, filterPath: "", degraded }) });
});
afterEach(() => restore());

let made = 0;
const create = (password: string) => app.createUser({ username: `user-${++made}`, password });
/** The error code of an attempt, and the codes of its reasons; undefined where it succeeds. */
const outcomeOf = (attempt: Promise<unknown>) =>
  attempt.then(
    () => undefined,
    ({ errorCode, details }) => [errorCode, ...(details.reasons ?? []).map(({ code }: { code: string }) => code)],
  );
const BREACHED = ["PASSWORD_TOO_WEAK", "password_breached"];
const degradations = (userId: string) =>
  app.db.query<{ details: unknown; actor_kind: string; outcome: string }>(
    "SELECT details, actor_kind, outcome FROM audit_log WHERE action = 'breach_check_degraded' AND subject_id = $1",
    [userId],
  );

// The service learns five of the forty digits of a hash, and nothing else of anybody.
describe("asking the service", () => {
  test("is one request, padded, with no more than the prefix in it", async () => {
    await create(PASSWORD);
    expect(service.requests).toHaveLength(1);
    const [{ method, url, headers } = { method: "", url: "", headers: {} }] = service.requests;
    expect({ method, url }).toEqual({ method: "GET", url: `/range/${sha1Of(PASSWORD).slice(0, 5)}` });
    expect(headers).toMatchObject({ "add-padding": "true", "user-agent": `primer/${VERSION}` });
    const sent = JSON.stringify(service.requests).toUpperCase();
    expect(sent).not.toContain(sha1Of(PASSWORD).slice(0, 6));
    expect(sent).not.toContain(sha1Of(PASSWORD).slice(5, 15));
    expect(sent).not.toContain("USER-1");
  });

  test("a password that it knows is refused, for a new account and for a new password", async () => {
    expect(await outcomeOf(create(LEAKED))).toEqual(BREACHED);
    const { id } = await create(PASSWORD);
    expect(await outcomeOf(setPassword(app.deps, id, LEAKED, OPERATOR))).toEqual(BREACHED);
  });

  test("in Unicode's canonical form, however it was typed", async () => {
    expect(await outcomeOf(create(COMPOSED.normalize("NFD")))).toEqual(BREACHED);
  });

  test("digits in small letters are understood", async () => {
    service.behaviour = "lowerCase";
    expect(await outcomeOf(create(LEAKED))).toEqual(BREACHED);
  });

  // Padding is there to hide which prefix was asked for; it says nothing about a password.
  test("a count of 0 is padding", async () => {
    const { id } = await create(PADDED);
    expect(await degradations(id)).toEqual([]);
  });

  test("what is refused without it is not asked at all, and neither is any login", async () => {
    expect(await outcomeOf(create("passwordpassword"))).toEqual(BREACHED);
    const { username } = await create(PASSWORD);
    service.requests.length = 0;
    await app.login(username);
    expect(service.requests).toEqual([]);
  });

  test("off: nobody is asked", async () => {
    const { settings } = app.deps;
    app.deps.settings = { ...settings, password: { ...settings.password, hibp: "off" } };
    await create(LEAKED).finally(() => {
      app.deps.settings = settings;
    });
    expect(service.requests).toEqual([]);
  });
});

const REASONS: Readonly<Record<Exclude<Behaviour, "good" | "lowerCase">, string>> = {
  hung: "deadline",
  hungAfterHeaders: "deadline",
  dripping: "deadline",
  dropped: "unreachable",
  cutOff: "unreachable",
  status500: "wrong_answer",
  status429: "wrong_answer",
  redirect: "wrong_answer",
  page: "wrong_answer",
  nothing: "wrong_answer",
  endless: "wrong_answer",
  packed: "wrong_answer",
};

// A service that is away or answers nonsense costs at most a second; what went without it is in the log and in the audit log.
describe("where the service does not answer as it should", () => {
  for (const [behaviour, reason] of Object.entries(REASONS) as [keyof typeof REASONS, string][]) {
    test(`${behaviour}: the password is taken, and that is recorded`, async () => {
      service.behaviour = behaviour;
      expect(BEHAVIOURS).toHaveProperty(behaviour);
      const logged = app.logLines.length;
      const started = performance.now();
      const { id } = await create(PASSWORD);
      expect(performance.now() - started).toBeLessThan(MOST_MS);
      expect(service.requests).toHaveLength(1);
      expect(await degradations(id)).toEqual([{ details: { reason }, actor_kind: "operator", outcome: "failure" }]);
      const lines = app.logLines.slice(logged).map((line) => JSON.parse(line));
      expect(lines).toContainEqual(expect.objectContaining({ level: "warn", event: "breach_check_degraded", reason }));
      expect(app.logLines.slice(logged).join("")).not.toContain(sha1Of(PASSWORD).slice(0, 5));
    });
  }

  test("nobody listens: the same", async () => {
    const gone = await startRangeService();
    gone.stop();
    const { settings } = app.deps;
    app.deps.settings = { ...settings, password: { ...settings.password, hibp_url: gone.url } };
    const { id } = await create(PASSWORD).finally(() => {
      app.deps.settings = settings;
    });
    expect(await degradations(id)).toMatchObject([{ details: { reason: "unreachable" } }]);
  });

  test("a new password: recorded with its change", async () => {
    const { id } = await create(PASSWORD);
    service.behaviour = "status500";
    await setPassword(app.deps, id, "tangerine dream sequence", OPERATOR);
    expect(await degradations(id)).toHaveLength(1);
  });

  // A record of a change that did not happen would be a lie.
  test("a change that fails leaves no record", async () => {
    const count = "SELECT count(*)::int AS count FROM audit_log WHERE action = 'breach_check_degraded'";
    const { username } = await create(PASSWORD);
    const before = await app.db.query(count);
    service.behaviour = "status500";
    const again = app.createUser({ username, email: "other@example.test", password: PASSWORD });
    expect(await outcomeOf(again)).toEqual(["CONFLICT"]);
    expect(await app.db.query(count)).toEqual(before);
  });

  test("the list that is built in refuses all the same", async () => {
    service.behaviour = "hung";
    expect(await outcomeOf(create("qwertyuiopasdfgh"))).toEqual(BREACHED);
  });

  // A service that is down is not asked again and again, and nobody waits for it.
  test("after five failures it is left alone for a while, then asked again", async () => {
    const reasons: string[] = [];
    const check = createBreachCheck({
      settings: () => app.deps.settings.password,
      filterPath: "",
      degraded: (reason) => reasons.push(reason),
      pause: 300,
    });
    service.behaviour = "status500";
    for (let index = 0; index < 5; index++) await check.look(PASSWORD);
    const started = performance.now();
    for (let index = 0; index < 20; index++) await check.look(PASSWORD);
    if (performance.now() - started < 140) {
      expect(service.requests).toHaveLength(5);
      expect(reasons).toEqual([...Array(5).fill("wrong_answer"), ...Array(20).fill("breaker_open")]);
    }
    service.behaviour = "good";
    await until("the service to be asked again", async () => (await check.look(LEAKED)).breached);
    expect(await check.look(PASSWORD)).toEqual({ breached: false, degraded: undefined });
  });

  test("50 at once while it hangs: nobody waits for longer than the deadline", async () => {
    service.behaviour = "hung";
    const started = performance.now();
    const looks = await Promise.all(Array.from({ length: 50 }, () => app.deps.breachCheck.look(PASSWORD)));
    expect(performance.now() - started).toBeLessThan(MOST_MS);
    for (const { breached, degraded } of looks)
      expect({ breached, degraded }).toEqual({ breached: false, degraded: "deadline" });
  });
});
