import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Decrypter } from "age-encryption";
import { type Secrets, secretKey } from "../../config/secrets.ts";
import { PROCESSES } from "../../db/left-overs.ts";
import { createSealer } from "../../server/features/audit/service.ts";
import { inspectBackup, type TakenBackup, takeBackup } from "../../server/features/backups/service.ts";
import { FULL, inShort } from "../drills/processes.ts";
import { openTestApp, PASSWORD, type TestApp } from "../support/app.ts";
import { seedUsers } from "./support/seed.ts";

/** The part of it that containers may share. */
const HOST = PROCESSES.replace(/-\w+$/, "");
const NEW_CONTAINER = ["unshare", "--user", "--map-root-user", "--pid", "--fork"];
const canUnshare = (() => {
  try {
    return Bun.spawnSync([...NEW_CONTAINER, "true"]).exitCode === 0;
  } catch {
    return false;
  }
})();
if (!canUnshare) process.stderr.write("not here, where unshare makes no container: telling containers apart\n");

const PASSPHRASE = "a passphrase of enough length";
const folder = mkdtempSync(join(tmpdir(), "primer-backup-"));
const file = join(folder, "whole.backup");
let app: TestApp;
let taken: TakenBackup;

const inspect = (path: string, more: { passphrase?: string; secrets?: Secrets } = {}) =>
  inspectBackup({ file: path, passphrase: PASSPHRASE, secrets: app.deps.secrets, ...more });

beforeAll(async () => {
  app = await openTestApp();
  await app.createUser({ username: "canary", email: "canary@secret.example" });
  await app.login("canary");
  await seedUsers(app.db, 1000);
  await createSealer(app.db, app.clock.elapsed).seal();
  const options = { file, passphrase: PASSPHRASE, settingsText: "# settings of a canary\n", told() {} };
  taken = await takeBackup(app.deps, { ...options, actor: { kind: "operator" } });
});
afterAll(async () => {
  await app.close();
  rmSync(folder, { recursive: true, force: true });
});

async function exitCodeOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => "it was accepted",
    (error) => error.exitCode ?? error,
  );
}

describe("a backup", () => {
  test("is one file for its owner alone, and says what is in it", async () => {
    expect(readdirSync(folder)).toEqual(["whole.backup"]);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(statSync(file).size).toBe(taken.bytes);
    const { manifest, tables, rows } = await inspect(file);
    const [end] = await app.db.query<{ head: string }>(
      "SELECT seq || ':' || encode(hash, 'hex') AS head FROM audit_seals ORDER BY seq DESC LIMIT 1",
    );
    expect(manifest.audit_head).toBe(end?.head ?? "none");
    expect(manifest).toMatchObject({ id: taken.id, settings: "# settings of a canary\n", database: app.db.kind });
    expect(tables["public.users"]?.rows).toBe(1001);
    expect(rows).toBe(taken.rows);
    expect(tables).toEqual(taken.tables);
  });

  // What killed processes have left goes with the next backup; what another one is still writing stays.
  test("takes away the parts that processes have left which are gone", async () => {
    const [dead, living] = [Bun.spawn(["true"]), Bun.spawn(["sleep", "60"])];
    await dead.exited;
    const folder = mkdtempSync(join(tmpdir(), "primer-left-"));
    try {
      const names = {
        gone: `a.backup.partial.${PROCESSES}.${dead.pid}`,
        own: `b.backup.partial.${PROCESSES}.${process.pid}`,
        old: `c.backup.partial.elsewhere.${dead.pid}`,
        others: `d.backup.partial.elsewhere.${dead.pid}`,
        sameName: `d2.backup.partial.${HOST}-0.${dead.pid}`,
        underWay: `e.backup.partial.${PROCESSES}.${living.pid}`,
        notOurs: `f.backup.${PROCESSES}.${dead.pid}`,
      };
      for (const name of Object.values(names)) writeFileSync(join(folder, name), "x");
      const longAgo = app.clock.now().getTime() / 1000 - 2 * 86_400;
      utimesSync(join(folder, names.old), longAgo, longAgo);
      const options = { file: join(folder, "new.backup"), passphrase: PASSPHRASE, settingsText: null, told() {} };
      await takeBackup(app.deps, { ...options, actor: { kind: "operator" } });
      expect(readdirSync(folder).sort()).toEqual([
        names.others,
        names.sameName,
        names.underWay,
        names.notOurs,
        "new.backup",
      ]);
    } finally {
      living.kill();
      await living.exited;
      rmSync(folder, { recursive: true, force: true });
    }
  });

  // Of two containers with one host name neither takes the other's process for one of its own that is gone.
  test.if(canUnshare)("tells containers apart that share a host name", () => {
    const script = `process.stdout.write((await import("${join(import.meta.dir, "../../db/left-overs.ts")}")).PROCESSES)`;
    const of = (words: string[]) => Bun.spawnSync([...words, process.execPath, "-e", script]).stdout.toString();
    const [here, container] = [of([]), of(NEW_CONTAINER)];
    expect(here).toBe(PROCESSES);
    expect(container).toStartWith(`${HOST}-`);
    expect(container).not.toBe(here);
  });

  // The database that goes away at this moment may not come back: its youngest backup is not thrown away.
  test("that cannot be recorded stays, is whole, and says so", async () => {
    const folder = mkdtempSync(join(tmpdir(), "primer-unrecorded-"));
    try {
      const options = { file: join(folder, "kept.backup"), passphrase: PASSPHRASE, settingsText: null, told() {} };
      const transaction = () => Promise.reject(new Error("Connection terminated"));
      const work = takeBackup(
        { ...app.deps, db: { ...app.db, transaction } },
        { ...options, actor: { kind: "operator" } },
      );
      const refused = await work.catch((error) => error);
      expect([refused.exitCode, refused.message]).toEqual([1, expect.stringContaining("is whole")]);
      expect(readdirSync(folder)).toEqual(["kept.backup"]);
      expect((await inspect(options.file)).rows).toBeGreaterThan(1000);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  // It stands where the installation stands: a table that is forgotten is lost on the day it is needed.
  test("has every table of ours but those that are named here", async () => {
    const found = await app.db.query<{ name: string }>(
      `SELECT relnamespace::regnamespace || '.' || relname AS name FROM pg_class
       WHERE relnamespace IN ('public'::regnamespace, 'jobs'::regnamespace) AND relkind IN ('r', 'p', 'S') AND NOT relispartition`,
    );
    const left = found.map(({ name }) => name).filter((name) => !(name in taken.tables));
    expect(left.sort()).toEqual([
      "jobs.bam",
      "jobs.queue",
      "jobs.queue_stats",
      "jobs.schedule",
      "jobs.subscription",
      "jobs.version",
      "jobs.warning",
      "public.audit_log_number_seq", // follows from the rows
      "public.idempotency_keys", // gone within a day
      "public.processes",
      "public.schema_migrations",
      "public.threat_lists", // to be had anew
    ]);
  });

  // Whoever gets at the file alone has nothing: no address, no hash, no key, no setting.
  test("shows nothing of what is in it", async () => {
    const bytes = readFileSync(file).toString("latin1");
    const [row] = await app.db.query<{ secret: string; sealed: string }>(
      "SELECT (SELECT secret FROM credentials LIMIT 1) AS secret, (SELECT sealed_private_key FROM signing_keys LIMIT 1) AS sealed",
    );
    const canaries = ["canary", "secret.example", "argon2id", "primer backup", "users", row?.secret, row?.sealed];
    for (const canary of [...canaries, row?.secret.slice(-20), row?.sealed.slice(-20), PASSPHRASE, PASSWORD]) {
      expect([canary, bytes.includes(canary ?? "missing")]).toEqual([canary, false]);
    }
  });

  // The form is a standard one, so that a backup can be read without primer: age, then zstd.
  test("opens with any program for the age format", async () => {
    const decrypter = new Decrypter();
    decrypter.addPassphrase(PASSPHRASE);
    const plain = await decrypter.decrypt(new Uint8Array(readFileSync(file)));
    const first = JSON.parse(Buffer.from(Bun.zstdDecompressSync(plain.slice())).toString().split("\n")[0] ?? "");
    expect(first).toMatchObject({ format: "primer backup", id: taken.id });
  });
});

// A byte that differs anywhere, in the head, the first part, the middle or the end, is seen before anything is done.
describe("a backup that is not as it was written", () => {
  const changed = (name: string, change: (bytes: Buffer) => Buffer) => {
    const path = join(folder, `${name}.backup`);
    writeFileSync(path, change(readFileSync(file)));
    return path;
  };
  const flipped = (at: (size: number) => number) => (bytes: Buffer) => {
    const index = at(bytes.length);
    bytes[index] = (bytes[index] ?? 0) ^ 1;
    return bytes;
  };
  const headOf = () => readFileSync(file).indexOf("\n---") + 1;

  inShort("a byte is changed in five of nine places of a backup, and a piece is missing in three of six");
  const changes: [string, (bytes: Buffer) => Buffer][] = [
    ["the salt", flipped(() => 35)],
    ["the seal of the head", flipped(() => headOf() + 10)],
    ["the first part", flipped(() => headOf() + 500)],
    ["the middle", flipped((size) => size >> 1)],
    ["the last byte", flipped((size) => size - 1)],
    ["its last part missing", (bytes) => bytes.subarray(0, headOf() + 63 + 65_552)],
    ["only its head", (bytes) => bytes.subarray(0, headOf() + 47)],
    ["something after it", (bytes) => Buffer.concat([bytes, Buffer.from("x")])],
    ["nothing in it", () => Buffer.alloc(0)],
  ];
  const more: typeof changes = [
    ["the version in its head", flipped(() => 20)],
    ["the work factor", flipped(() => readFileSync(file).indexOf(" 17\n") + 2)],
    ["the wrapped key", flipped(() => headOf() - 10)],
    ["the nonce", flipped(() => headOf() + 50)],
    ["the second part", flipped(() => 70_000)],
    ["its last byte missing", (bytes) => bytes.subarray(0, -1)],
    ["cut in the middle", (bytes) => bytes.subarray(0, bytes.length >> 1)],
    [
      "a part missing",
      (bytes) => Buffer.concat([bytes.subarray(0, headOf() + 63), bytes.subarray(headOf() + 63 + 65_552)]),
    ],
  ];
  test("it has three parts at least, or the middle would not be tried", () => {
    expect(taken.bytes).toBeGreaterThan(2 * 65_552);
  });
  test.each(FULL ? [...changes, ...more] : changes)("%s: refused", async (name, change) => {
    const path = changed(name.replaceAll(" ", "-"), change);
    expect([1, 2]).toContain((await exitCodeOf(inspect(path))) as number);
  });
});

describe("what belongs to a backup", () => {
  const other = secretKey(new Uint8Array(32).map((_, index) => index * 3 + 2));
  test.each<[string, () => Parameters<typeof inspect>[1]]>([
    ["another passphrase", () => ({ passphrase: `${PASSPHRASE}x` })],
    ["another master key", () => ({ secrets: { ...app.deps.secrets, master: [other] } })],
    // Nobody could log in, and only the first who tries would find out.
    ["another pepper", () => ({ secrets: { ...app.deps.secrets, pepper: [other] } })],
  ])("%s is refused", async (_, more) => {
    expect(await exitCodeOf(inspect(file, more()))).toBe(2);
  });
});
