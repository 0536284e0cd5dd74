import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readingsOf } from "../../config/meter.ts";
import { secretKey } from "../../config/secrets.ts";
import { findLastBackup } from "../../server/features/backups/service.ts";
import { runScheduledBackup, type ScheduledBackupDeps } from "../../worker/schedules/take-backup.ts";
import { openTestApp, type TestApp } from "../support/app.ts";

const DAY_MS = 86_400_000;
const home = mkdtempSync(join(tmpdir(), "primer-scheduled-"));
const folder = join(home, "backups");
let app: TestApp;

beforeAll(async () => {
  app = await openTestApp();
  writeFileSync(join(home, "passphrase"), "a passphrase of enough length");
});
afterAll(async () => {
  await app.close();
  rmSync(home, { recursive: true, force: true });
});

function depsWith(backup: Partial<TestApp["deps"]["settings"]["backup"]>): ScheduledBackupDeps {
  const { db, clock, random, secrets, log, settings } = app.deps;
  const set = { ...settings.backup, folder: "backups", key_file: "passphrase", ...backup };
  return { db, clock, random, secrets, log, home, settings: { ...settings, backup: set } };
}
const files = () => readdirSync(folder).sort();

test("without a folder there is none", async () => {
  expect(await runScheduledBackup(depsWith({ folder: "" }))).toBeUndefined();
});

test("one a day, the last ones are kept, and what is not ours stays", async () => {
  for (let day = 1; day <= 3; day++) {
    await runScheduledBackup(depsWith({ keep: 2, verify: false }));
    app.clock.advance(DAY_MS);
  }
  writeFileSync(join(folder, "notes.txt"), "");
  expect(files()).toEqual(["notes.txt", "primer-20260302T120000Z.backup", "primer-20260303T120000Z.backup"]);
  expect(statSync(folder).mode & 0o777).toBe(0o700);
  expect(await findLastBackup(app.db.orm, true)).toBeUndefined();
});

// As long as the new one is not proven, the old ones are what there is.
test("one that cannot be proven removes none, and is not remembered as verified", async () => {
  const other = { ...app.deps.secrets, pepper: [secretKey(new Uint8Array(32).map((_, i) => i * 9 + 4))] as const };
  await app.createUser({ username: "ada" });
  const failing = runScheduledBackup({ ...depsWith({ keep: 1 }), secrets: other });
  expect(await failing.then(String, (error) => error.exitCode)).toBe(2);
  expect(files()).toHaveLength(4);
  expect(await findLastBackup(app.db.orm, true)).toBeUndefined();
});

test("one that was proven is remembered, and the others make room", async () => {
  app.clock.advance(DAY_MS);
  const taken = await runScheduledBackup(depsWith({ keep: 1 }));
  expect(files()).toEqual(["notes.txt", "primer-20260305T120000Z.backup"]);
  expect(await findLastBackup(app.db.orm, true)).toMatchObject({ id: taken?.id, verifiedAt: app.clock.now() });
  app.clock.advance(90_000);
  const age = readingsOf(await app.deps.metrics.collect()).find(
    ({ name }) => name === "primer_backup_verified_age_seconds",
  );
  expect(age?.points).toEqual([{ labels: {}, value: 90 }]);
});
