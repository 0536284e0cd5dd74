import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openLogSink } from "../../config/log-files.ts";

const DAY_S = 86_400;
const home = mkdtempSync(join(tmpdir(), "primer-log-files-"));
const SETTINGS = { level: "info", folder: home, max_bytes: 65_536, keep: 1 } as const;
afterAll(() => rmSync(home, { recursive: true, force: true }));

// Containers that share a folder delete nothing that another one may still write.
test("the next file makes those go that nobody writes any more", async () => {
  const files = openLogSink(SETTINGS, home, "serve", { write: () => true }, () => new Date());
  files.sink.write("{}\n");
  await files.close();
  const [first = ""] = readdirSync(home);
  const here = first.split("-")[2];
  const elsewhere = here === "00000000" ? "11111111" : "00000000";
  const ended = Bun.spawn(["true"]);
  await ended.exited;
  const nowS = Date.now() / 1000;
  const before: Record<string, { readonly writtenS: number; readonly stays: boolean }> = {
    // The one that is kept of all that have ended.
    [`serve-20260101T000000009Z-${here}-${ended.pid}.log`]: { writtenS: nowS - 9 * DAY_S, stays: true },
    [`serve-20260101T000000001Z-${here}-${process.ppid}.log`]: { writtenS: nowS - 9 * DAY_S, stays: true },
    [`serve-20260101T000000002Z-${here}-${ended.pid}.log`]: { writtenS: nowS, stays: false },
    [`serve-20260101T000000003Z-${elsewhere}-${process.pid}.log`]: { writtenS: nowS - 3600, stays: true },
    [`serve-20260101T000000004Z-${elsewhere}-${ended.pid}.log`]: { writtenS: nowS - 2 * DAY_S, stays: false },
    [`worker-20260101T000000005Z-${here}-${ended.pid}.log`]: { writtenS: nowS - 9 * DAY_S, stays: true },
    "notes.log": { writtenS: nowS - 9 * DAY_S, stays: true },
  };
  for (const [name, { writtenS }] of Object.entries(before)) {
    writeFileSync(join(home, name), "");
    utimesSync(join(home, name), writtenS, writtenS);
  }
  await Bun.sleep(2); // else it would have the first one's name
  const next = openLogSink(SETTINGS, home, "serve", { write: () => true }, () => new Date());
  next.sink.write("{}\n");
  await next.close();
  const staying = Object.entries(before).flatMap(([name, { stays }]) => (stays ? [name] : []));
  const left = readdirSync(home);
  expect(left.filter((name) => name in before).sort()).toEqual(staying.sort());
  expect(left).toHaveLength(staying.length + 2); // with those of this process, of which it keeps one beside the open one
});
