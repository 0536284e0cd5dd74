import { expect, test } from "bun:test";
import { chainReaderOn, createSealer, makeAuditMonths, verifyChain } from "../../../server/features/audit/service.ts";
import { openTestApp } from "../../support/app.ts";
import { TEST_DATABASE } from "../../support/database.ts";

const ON_SERVER = TEST_DATABASE === "postgres";
if (!ON_SERVER)
  process.stderr.write("not on the embedded database, which has one connection: logins while months are made\n");
const WRITERS = 4;
const STRAYS = 4000;
/** What nobody waits longer than (milliseconds): the wait for a lock is 400 ms, and a login takes its time. */
const LONGEST_MS = 1000;

// Whoever signs in does not wait for the months of the log, though many rows are put where they belong.
test.if(ON_SERVER)("logins go on while months of the audit log are made and filled", async () => {
  const app = await openTestApp({ PRIMER_RATE_LIMITS__LOGIN_IP: "off" });
  try {
    app.clock.advance(Date.now() - app.clock.now().getTime());
    for (let writer = 0; writer < WRITERS; writer++) await app.createUser({ username: `user${writer}` });
    let going = true;
    let phase = "";
    const took: { readonly ms: number; readonly status: number; readonly phase: string }[] = [];
    const writers = Array.from({ length: WRITERS }, async (_, writer) => {
      const body = { username: `user${writer}`, password: "correct horse battery staple" };
      while (going) {
        const [began, at] = [performance.now(), phase];
        const { status } = await app.request("POST", "/api/v1/auth/login", { body });
        took.push({ ms: performance.now() - began, status, phase: at });
      }
    });
    const inPhase = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
      phase = name;
      const before = took.length;
      const result = await work();
      while (took.length < before + 2 * WRITERS) await Bun.sleep(5); // all of them have met it
      return result;
    };
    const strays = (month: string) =>
      app.db.query(
        `INSERT INTO audit_log (id, time, action, outcome, actor_kind)
         SELECT gen_random_uuid(), $1::timestamptz + n * interval '1 second', 'login', 'success', 'system'
         FROM generate_series(1, ${STRAYS}) n`,
        [month],
      );
    for (const month of ["2025-01-01", "2025-02-01", "2025-03-01"]) await strays(month);
    expect(await inPhase("moved", () => makeAuditMonths(app.db))).toBeGreaterThan(0);
    await strays("2025-04-01");
    // Where the log is being read, as by a backup, they stay where they are, and nobody waits for that either.
    await inPhase("read", () =>
      app.db.snapshot(async (reader) => {
        await reader.query("SELECT count(*) FROM audit_log");
        expect(await makeAuditMonths(app.db)).toBe(0);
      }),
    );
    expect(await inPhase("moved later", () => makeAuditMonths(app.db))).toBe(2);
    going = false;
    await Promise.all(writers);
    expect(took.filter(({ status }) => status !== 200)).toEqual([]);
    expect(took.filter(({ ms }) => ms > LONGEST_MS)).toEqual([]);
    expect(await app.db.query("SELECT 1 FROM audit_log_rest LIMIT 1")).toEqual([]);
    const sealer = createSealer(app.db, app.clock.elapsed);
    while ((await sealer.seal()).more);
    expect(await verifyChain(chainReaderOn(app.db), () => {})).toMatchObject({ ok: true, unsealed: { rows: 0 } });
    const longest = Math.round(Math.max(...took.map(({ ms }) => ms)));
    process.stderr.write(`${took.length} logins while months were made, the longest ${longest} ms\n`);
  } finally {
    await app.close();
  }
});
