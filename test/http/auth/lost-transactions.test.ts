import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readingsOf } from "../../../config/meter.ts";
import type { Database } from "../../../db/database.ts";
import { PASSWORD } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { replaceDeps } from "../support/observe.ts";

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp();
});
afterAll(() => app.close());

/** A database on which every transaction loses the first time, when all of its work is done, and is run again. */
function losingOnce(db: Database): Database {
  const twice =
    (begin: Database["transaction"]): Database["transaction"] =>
    async (work) => {
      const lost = new Error("This transaction lost");
      const losing = begin(async (tx, withCommit) => {
        await work(tx, withCommit);
        throw lost;
      });
      expect(await losing.catch((error) => error)).toBe(lost);
      return begin(work);
    };
  return { ...db, transaction: twice(db.transaction), change: twice(db.change) };
}

async function whileLosing<T>(work: () => Promise<T>): Promise<T> {
  const restore = replaceDeps(app.deps, { db: losingOnce(app.deps.db) });
  try {
    return await work();
  } finally {
    restore();
  }
}

const post = (path: string, body: object, userAgent = "Firefox") =>
  app.request("POST", `/api/v1/auth/${path}`, { body, headers: { "user-agent": userAgent } });
const logged = (event: string, userId: string) =>
  app.logLines.map((line) => JSON.parse(line)).filter((line) => line.event === event && line.user_id === userId);

async function countOf(name: string, label: string, value: string): Promise<number> {
  const metric = readingsOf(await app.deps.metrics.collect()).find((one) => one.name === name);
  return metric?.points.find(({ labels }) => labels[label] === value)?.value ?? 0;
}

// The server may undo a transaction for the sake of another, and it is run again: what is told outside of the database is
// told once, for what has committed.
describe("a transaction that is run a second time", () => {
  test("an unusual sign-in is counted and logged once", async () => {
    const { id } = await app.createUser({ username: "ada" });
    const login = (userAgent: string) => post("login", { username: "ada", password: PASSWORD }, userAgent);
    await login("Firefox");
    const before = await countOf("primer_unusual_sign_ins_total", "signal", "new_device");
    expect((await whileLosing(() => login("Safari"))).status).toBe(200);
    expect(await countOf("primer_unusual_sign_ins_total", "signal", "new_device")).toBe(before + 1);
    expect(logged("login.unusual", id)).toHaveLength(1);
    const records = await app.db.query("SELECT 1 FROM login_records WHERE user_id = $1", [id]);
    expect(records).toHaveLength(2);
  });

  test("a refresh token that is used a second time is logged once", async () => {
    const { id, username } = await app.createUser({ username: "grace" });
    const { refresh_token } = await app.login(username);
    expect((await post("refresh", { refresh_token })).status).toBe(200);
    app.clock.advance(60_000);
    const before = await countOf("primer_refreshes_total", "outcome", "reused");
    const { status, body } = await whileLosing(() => post("refresh", { refresh_token }));
    expect([status, body.error.code]).toEqual([401, "AUTH_REFRESH_REUSED"]);
    expect(logged("refresh.reused", id)).toHaveLength(1);
    expect(await countOf("primer_refreshes_total", "outcome", "reused")).toBe(before + 1);
    const told = await app.db.query(
      "SELECT 1 FROM audit_log WHERE action = 'refresh.reused' AND details->>'user_id' = $1",
      [id],
    );
    expect(told).toHaveLength(1);
    await post("refresh", { refresh_token });
    expect(logged("refresh.reused", id)).toHaveLength(1);
  });
});
