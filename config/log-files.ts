import { createHash } from "node:crypto";
import { createWriteStream, mkdirSync, readdirSync, readlinkSync, rmSync, statSync, type WriteStream } from "node:fs";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { codeOf, failed, textOf } from "./errors.ts";
import type { LogSink } from "./log.ts";
import type { Settings } from "./schema.ts";

/** How much may wait for a slow disk before lines are left out of the file (bytes). */
const MOST_WAITING_BYTES = 4 * 1024 * 1024;
/** How long the last lines may take to get into the file when the process ends (milliseconds). */
const LAST_WRITE_MS = 2000;
/** After a file could not be written, the next one is begun no sooner than this (milliseconds). */
const TRY_AGAIN_MS = 10_000;
/** Whether a process of another machine or container is there nobody can tell: it is gone where it wrote nothing for so long. */
const GONE_AFTER_MS = 24 * 3_600_000;
/** A container that ends and begins again is another one each time: of all others no more than so many times `keep` stay. */
const MOST_OF_OTHERS = 10;

/** Where process ids count: in containers that share a folder all processes may have the same one, and the same host name. */
const PLACE = createHash("sha256").update(`${hostname()} ${pidNamespace()}`).digest("hex").slice(0, 8);

function pidNamespace(): string {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return ""; // a system without
  }
}

/** Where log lines go. */
export interface LogFiles {
  readonly sink: LogSink;
  /** Resolves once everything is in the file, for the end of the process. */
  close(): Promise<void>;
}

/**
 * Where log lines go: to `out`, and where `log.folder` names one to a file there as well. Each process has a file of its
 * own, and begins the next one where it has become too large; its oldest files are deleted. A disk that fails
 * or is full costs the lines in the file, and nothing else.
 *
 * @param home what a relative folder starts from
 * @param kind what the process is there for: how its files are named
 * @throws OperatorError exit 1 where the folder cannot be written
 */
export function openLogSink(
  settings: Settings["log"],
  home: string,
  kind: string,
  out: LogSink,
  now: () => Date,
): LogFiles {
  if (settings.folder === "") return { sink: out, async close() {} };
  const folder = resolve(home, settings.folder);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw failed(`${folder} cannot be made: ${textOf(error)}`, "Choose another log.folder, or make it yours.", error);
  }
  let file: WriteStream | undefined;
  let size = 0;
  let lastWriteAt = 0;
  let nextTryAt = 0;

  function begin(): WriteStream {
    const began = now().toISOString().replace(/[-:]/g, "").replace(".", "");
    const stream = createWriteStream(join(folder, `${kind}-${began}-${PLACE}-${process.pid}.log`), {
      flags: "a",
      mode: 0o600,
    });
    stream.on("error", () => {
      if (file === stream) file = undefined;
      nextTryAt = performance.now() + TRY_AGAIN_MS;
    });
    stream.on("open", () => deleteOldest(folder, kind, settings.keep, now()));
    size = 0;
    return stream;
  }

  function write(line: string): void {
    const silentMs = performance.now() - lastWriteAt;
    lastWriteAt = performance.now();
    // One that was silent for long others may take for gone.
    if (file && (size >= settings.max_bytes || silentMs > GONE_AFTER_MS / 2)) {
      file.end();
      file = undefined;
    }
    if (!file && performance.now() < nextTryAt) return;
    file ??= begin();
    if (file.writableLength > MOST_WAITING_BYTES) return;
    file.write(line);
    size += Buffer.byteLength(line);
  }
  const sink: LogSink = {
    write(line) {
      write(line);
      return out.write(line);
    },
    get writableLength() {
      return out.writableLength ?? 0;
    },
  };
  return {
    sink,
    async close() {
      const last = file;
      if (!last) return;
      const written = new Promise<void>((resolve) => last.once("close", resolve).end());
      await Promise.race([written, Bun.sleep(LAST_WRITE_MS)]);
    },
  };
}

/**
 * Of its own files a process keeps as many as `keep` says beside the one that it writes, and of those of processes that are
 * gone as many together. What cannot be deleted stays.
 */
function deleteOldest(folder: string, kind: string, keep: number, now: Date): void {
  try {
    const files = readdirSync(folder)
      .flatMap((name) => {
        const [, ofKind, began = "", place = "", pid] =
          /^(\w+)-(\d{8}T\d{9}Z)-([0-9a-f]{8})-(\d+)\.log$/.exec(name) ?? [];
        return ofKind === kind ? [{ path: join(folder, name), began, place, pid: Number(pid) }] : [];
      })
      .sort((one, other) => (one.began < other.began ? 1 : -1));
    const isOwn = ({ place, pid }: LogFile) => place === PLACE && pid === process.pid;
    const own = files.filter(isOwn).slice(keep + 1);
    const others = files.filter((file) => !isOwn(file));
    const gone = others.filter((file) => isGone(file, now)).slice(keep);
    const tooMany = others.filter(({ place }) => place !== PLACE).slice(MOST_OF_OTHERS * keep);
    for (const { path } of [...own, ...gone, ...tooMany]) rmSync(path, { force: true });
  } catch {
    // The next file tries again.
  }
}

interface LogFile {
  readonly path: string;
  readonly place: string;
  readonly pid: number;
}

function isGone({ path, place, pid }: LogFile, now: Date): boolean {
  if (place !== PLACE) {
    const written = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
    return now.getTime() - written > GONE_AFTER_MS;
  }
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return codeOf(error) !== "EPERM";
  }
}
