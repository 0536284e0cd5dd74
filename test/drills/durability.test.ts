import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { canRun, FULL, inShort, root, scratchFolder, start } from "./processes.ts";
import { tableRow } from "./table.ts";

const COMMITS = FULL ? 1000 : 50;
inShort(`${COMMITS} commits are looked at, 1000 with TEST_FULL`);

const scratch = scratchFolder();
afterAll(() => scratch.remove());

interface Call {
  readonly kind: "mark" | "wal write" | "wal sync";
  readonly id: string;
}

const TRACED = "trace=openat,close,fsync,fdatasync,write,pwrite64,pwritev,writev";

/**
 * What a trace shows of the write-ahead log and of the acknowledgements: a mark counts from when it began, a sync from
 * when it was over. `-y` has the kernel's name of each file beside its descriptor.
 */
function callsOf(trace: string): Call[] {
  const calls: Call[] = [];
  const unfinished = new Map<string, string>();
  for (const part of trace.split("\n")) {
    const [, thread = "", text = ""] = /^(\d+)\s+(.*)$/.exec(part) ?? [];
    const mark = /^write\(1<[^>]*>, "ack (\w+)\\n"/.exec(text);
    if (mark) calls.push({ kind: "mark", id: mark[1] ?? "" });
    if (text.endsWith("<unfinished ...>")) {
      unfinished.set(thread, text.replace(" <unfinished ...>", ""));
      continue;
    }
    const rest = /^<\.\.\. \w+ resumed>(.*)$/.exec(text);
    const line = rest ? (unfinished.get(thread) ?? "") + rest[1] : text;
    const file = /^(fsync|fdatasync|write|pwrite64|pwritev|writev)\(\d+<[^>]*\/pg_wal\/([0-9A-F]{24})>/.exec(line);
    if (!file) continue;
    const isSync = file[1] === "fsync" || file[1] === "fdatasync";
    if (!/= \d+$/.test(line)) throw new Error(`Neither whole nor well: ${line}`);
    calls.push({ kind: isSync ? "wal sync" : "wal write", id: file[2] ?? "" });
  }
  return calls;
}

// Whoever was told that something is saved finds it again after a power cut: the commit has reached the disk before
// it is acknowledged.
describe("an acknowledged commit is on the disk", () => {
  const missing = Bun.which("strace") ? undefined : "strace is not installed";
  test.if(canRun(missing, "durability drill"))(
    `${COMMITS} commits: between two acknowledgements the log is written and then synced`,
    async () => {
      const home = join(scratch.path, "home");
      const script = join(root, "test/drills/children/commit-rows.ts");
      expect((await start([script, home, "1", "0"]).finished).exitCode).toBe(0);

      const trace = join(scratch.path, "trace");
      const child = Bun.spawn(
        ["strace", "-f", "-y", "-s", "32", "-e", TRACED, "-o", trace, "bun", script, home, "1", String(COMMITS)],
        { cwd: root, stdin: "ignore", stdout: "ignore", stderr: "pipe" },
      );
      expect([await child.exited, await new Response(child.stderr).text()]).toEqual([0, ""]);

      const calls = callsOf(readFileSync(trace, "utf8"));
      const marks = calls.flatMap((call, index) => (call.kind === "mark" ? [{ ...call, index }] : []));
      expect(marks.map((mark) => mark.id)).toEqual([
        "open",
        ...Array.from({ length: COMMITS }, (_, index) => String(index + 1)),
      ]);
      let syncs = 0;
      for (const [number, mark] of marks.entries()) {
        if (number === 0) continue;
        const between = calls.slice((marks[number - 1]?.index ?? 0) + 1, mark.index).map((call) => call.kind);
        expect(between).toContain("wal write");
        expect(between.at(-1)).toBe("wal sync");
        syncs += between.filter((kind) => kind === "wal sync").length;
      }
      tableRow(
        "D12 power loss, embedded database",
        "a commit is on the disk before it is acknowledged",
        `${COMMITS} commits under strace, ${(syncs / COMMITS).toFixed(2)} fsync of the log for each`,
      );
    },
  );
});
