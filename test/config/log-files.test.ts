import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { openLogSink } from "../../config/log-files.ts";

const DAY_S = 86_400;
const home = mkdtempSync(join(tmpdir(), "primer-log-files-"));
afterAll(() => rmSync(home, { recursive: true, force: true }));

// Containers that share a folder delete nothing that another one may still write.
test("the next file makes those go that nobody writes any more", async () => {
  const here = hostname().replace(/[^A-Za-z0-9.]+/g, "_");
  const ended = Bun.spawn(["true"]);
  await ended.exited;
  const nowS = Date.now() / 1000;
  const before: Record<string, { readonly writtenS: number; readonly stays: boolean }> = {
    [`serve-20260101T000000001Z-${here}-${process.ppid}.log`]: { writtenS: nowS - 9 * DAY_S, stays: true },
    [`serve-20260101T000000002Z-${here}-${ended.pid}.log`]: { writtenS: nowS, stays: false },
    [`serve-20260101T000000003Z-another_container-${process.pid}.log`]: { writtenS: nowS - 3600, stays: true },
    [`serve-20260101T000000004Z-another_container-${ended.pid}.log`]: { writtenS: nowS - 2 * DAY_S, stays: false },
    [`worker-20260101T000000005Z-${here}-${ended.pid}.log`]: { writtenS: nowS - 9 * DAY_S, stays: true },
    "notes.log": { writtenS: nowS - 9 * DAY_S, stays: true },
  };
  for (const [name, { writtenS }] of Object.entries(before)) {
    writeFileSync(join(home, name), "");
    utimesSync(join(home, name), writtenS, writtenS);
  }
  const settings = { level: "info", folder: home, max_bytes: 65_536, keep: 0 } as const;
  const files = openLogSink(settings, home, "serve", { write: () => true }, () => new Date());
  files.sink.write("{}\n");
  await files.close();
  const staying = Object.entries(before).flatMap(([name, { stays }]) => (stays ? [name] : []));
  const left = readdirSync(home);
  expect(left.filter((name) => name in before).sort()).toEqual(staying.sort());
  expect(left).toHaveLength(staying.length + 1);
});
