import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { MAX_STREAMS, MAX_STREAMS_OF_ONE } from "../../../server/features/revocations/service.ts";
import { type Following, follow, listedIn, verifyList } from "../../support/revocations.ts";
import { type HttpApp, openHttpApp, openListeningApp } from "../support/http-app.ts";
import { brokenDatabase, replaceDeps } from "../support/observe.ts";

const PATH = "/api/v1/revocations/stream";
const ISSUER = "http://primer.test";

let app: HttpApp;
beforeAll(async () => {
  app = await openListeningApp();
  await app.createUser({ username: "ada" });
});
afterAll(() => app.close());

const open: Following[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((following) => following.leave()));
});

async function connect(): Promise<Following> {
  const following = await follow(fetch(`${app.url}${PATH}`));
  open.push(following);
  return following;
}

const logout = (tokens: { access_token: string }) =>
  app.request("POST", "/api/v1/auth/logout", { token: tokens.access_token });

/** Sessions that have ended already, straight into the table: `count` of them, now. */
const insertEnded = (count: number) =>
  app.db.query(
    `INSERT INTO sessions (id, user_id, client_id, amr, auth_time, created_at, last_seen_at, expires_at, revoked_at)
     SELECT gen_random_uuid(), users.id, 'primer', '{pwd}', t, t, t, t, t
     FROM generate_series(1, $2::int), users, (SELECT $1::timestamptz AS t) AS moment WHERE username = 'ada'`,
    [app.clock.now().toISOString(), count],
  );

describe("GET /api/v1/revocations/stream", () => {
  // The first event has all that is listed, each further one only what is new; all are signed, and one by one.
  test("first everything, then what is new", async () => {
    const [before, after] = [await app.login("ada"), await app.login("ada")];
    await logout(before);
    const following = await connect();
    expect(following.status).toBe(200);
    expect(following.headers.get("content-type")).toStartWith("text/event-stream");
    expect(following.headers.get("cache-control")).toBe("no-store");
    await following.untilEvents(1);
    await logout(after);
    await following.untilTold(after.session_id);
    const keys = (await app.request("GET", "/.well-known/jwks.json")).body;
    const [all, news] = await Promise.all(following.events.map((jwt) => verifyList(jwt, keys, ISSUER)));
    expect(all?.complete).toBe(true);
    expect(Object.keys(all?.revoked ?? {})).toContain(before.session_id);
    expect(news?.complete).toBe(false);
    expect(Object.keys(news?.revoked ?? {})).toEqual([after.session_id]);
  });

  // What ends while nobody listens, or between two looks, is not lost on whoever comes next.
  test("nothing is lost between streams", async () => {
    const first = await connect();
    await first.untilEvents(1);
    await first.leave();
    const tokens = await app.login("ada");
    await logout(tokens);
    const second = await connect();
    await second.untilEvents(1);
    expect(listedIn(second.events[0] ?? "")).toHaveProperty(tokens.session_id);
  });

  // However many listen, each hears of it, and hears the same: what is new is read and signed once.
  test("80 at the same moment", async () => {
    const all = await Promise.all(Array.from({ length: 80 }, connect));
    await Promise.all(all.map((following) => following.untilEvents(1)));
    const [one, two] = [await app.login("ada"), await app.login("ada")];
    await Promise.all([logout(one), logout(two)]);
    await Promise.all(all.flatMap(({ untilTold }) => [untilTold(one.session_id), untilTold(two.session_id)]));
    const told = new Set(all.map(({ events }) => events.slice(1).join()));
    expect(told.size).toBe(1);
  });

  // Whoever asks only for the headers takes no place.
  test("HEAD", async () => {
    const answer = await fetch(`${app.url}${PATH}`, { method: "HEAD" });
    expect({ status: answer.status, text: await answer.text() }).toEqual({ status: 200, text: "" });
  });

  // A client that does not read is cut off before what waits for it grows without end; the others hear on.
  test("a slow reader is cut off", async () => {
    const closed = Promise.withResolvers<void>();
    const slow = await Bun.connect({
      hostname: "127.0.0.1",
      port: Number(new URL(app.url).port),
      socket: { data() {}, close: () => closed.resolve() },
    });
    slow.write(`GET ${PATH} HTTP/1.1\r\nHost: x\r\n\r\n`);
    slow.pause();
    const quick = await connect();
    await quick.untilEvents(1);
    const cutOff = () => app.logLines.some((line) => line.includes('"revocations.cut_off"'));
    for (let round = 0; round < 8 && !cutOff(); round++) {
      await insertEnded(20_000);
      const tokens = await app.login("ada");
      await logout(tokens);
      await quick.untilTold(tokens.session_id, 5000);
    }
    expect(cutOff()).toBe(true);
    slow.resume();
    await closed.promise;
    const last = await app.login("ada");
    await logout(last);
    await quick.untilTold(last.session_id);
  }, 60_000);
});

describe("without the database", () => {
  // An open stream means that what it told is the present state: where that cannot be made sure of, it ends.
  test("streams end", async () => {
    const alone = await openHttpApp();
    const following = await follow(alone.app.handle(new Request(`http://localhost${PATH}`)));
    await following.untilEvents(1);
    const restore = replaceDeps(alone.deps, { db: brokenDatabase(alone.db, new Error("gone")) });
    alone.deps.revocations.changed(undefined);
    alone.clock.advance(11_000);
    expect(await following.ended).toBe("ended");
    expect(alone.logLines.filter((line) => line.includes('"revocations.not_read"')).length).toBe(1);
    restore();
    const again = await follow(alone.app.handle(new Request(`http://localhost${PATH}`)));
    await again.untilEvents(1);
    await alone.close();
    expect(await again.ended).toBe("ended");
  });
});

describe("the limit of streams", () => {
  let inProcess: HttpApp;
  beforeAll(async () => {
    inProcess = await openHttpApp();
  });
  afterAll(() => inProcess.close());

  const signal = new AbortController().signal;
  const askFrom = async (address: string) =>
    new Response(await inProcess.deps.revocations.open({ address, signal, drop() {} }));
  let asked = 0;
  const ask = () => askFrom(`client ${asked++}`);
  const BUSY = { errorCode: "SERVICE_UNAVAILABLE" };

  // Whoever opens all they can leaves room for everybody else.
  test("one address takes its part and no more", async () => {
    const all = await Promise.all(Array.from({ length: MAX_STREAMS_OF_ONE }, () => askFrom("203.0.113.9")));
    await expect(askFrom("203.0.113.9")).rejects.toMatchObject(BUSY);
    all.push(await askFrom("203.0.113.10"));
    await Promise.all(all.map(({ body }) => body?.cancel()));
    await (await askFrom("203.0.113.9")).body?.cancel();
  });

  // One stream too many is refused at once; a client that leaves makes room; a closing process takes none and ends all.
  test("503, room again, and the end", async () => {
    const answers: Response[] = await Promise.all(Array.from({ length: MAX_STREAMS }, ask));
    const refused = await inProcess.request("GET", PATH);
    expect({ status: refused.status, code: refused.body.error.code }).toEqual({
      status: 503,
      code: "SERVICE_UNAVAILABLE",
    });
    expect(Number(refused.headers.get("retry-after"))).toBeWithin(1, 61);

    await answers.pop()?.body?.cancel();
    answers.push(await ask());
    await expect(ask()).rejects.toMatchObject(BUSY);

    const followed = await Promise.all(answers.map(follow));
    inProcess.deps.revocations.close();
    expect(new Set(await Promise.all(followed.map(({ ended }) => ended)))).toEqual(new Set(["ended"]));
    await expect(ask()).rejects.toMatchObject(BUSY);
  });
});

describe("clients that leave", () => {
  // However a client goes away, and when, its place is free again.
  test("no place is lost", async () => {
    const url = `${app.url}${PATH}`;
    for (let round = 0; round < 12; round++) {
      const leaving = Array.from({ length: 50 }, async (_, index) => {
        const controller = new AbortController();
        const answer = fetch(url, { signal: controller.signal });
        if (index % 2 === 0) await answer;
        controller.abort();
        await answer.then((response) => response.text()).catch(() => {});
      });
      await Promise.all(leaving);
    }
    const following = await connect();
    expect(following.status).toBe(200);
    await following.untilEvents(1);
  });
});
