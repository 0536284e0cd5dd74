import { createWriteStream, mkdirSync, readdirSync, rmSync, statSync, type WriteStream } from "node:fs";
import { join, resolve } from "node:path";
import { failed, textOf } from "./errors.ts";
import type { LogSink } from "./log.ts";
import type { Settings } from "./schema.ts";

/** How much may wait for a slow disk before lines are left out of the file (bytes). */
const MOST_WAITING_BYTES = 4 * 1024 * 1024;
/** After a file could not be written, the next one is begun no sooner than this (milliseconds). */
const TRY_AGAIN_MS = 10_000;

/**
 * Where log lines go: to `out`, and where `log.folder` names one to a file there as well. Each process has a file of its
 * own, and begins the next one where it has become too large; the oldest files of its kind are deleted. A disk that fails
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
): LogSink {
  if (settings.folder === "") return out;
  const folder = resolve(home, settings.folder);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw failed(`${folder} cannot be made: ${textOf(error)}`, "Choose another log.folder, or make it yours.", error);
  }
  let file: WriteStream | undefined;
  let size = 0;
  let nextTryAt = 0;

  function begin(): WriteStream {
    const began = now().toISOString().replace(/[-:]/g, "").replace(".", "");
    const stream = createWriteStream(join(folder, `${kind}-${began}-${process.pid}.log`), { flags: "a", mode: 0o600 });
    stream.on("error", () => {
      if (file === stream) file = undefined;
      nextTryAt = performance.now() + TRY_AGAIN_MS;
    });
    stream.on("open", () => deleteOldest(folder, kind, settings.keep));
    size = 0;
    return stream;
  }

  function write(line: string): void {
    if (file && size >= settings.max_bytes) {
      file.end();
      file = undefined;
    }
    if (!file && performance.now() < nextTryAt) return;
    file ??= begin();
    if (file.writableLength > MOST_WAITING_BYTES) return;
    file.write(line);
    size += Buffer.byteLength(line);
  }
  return {
    write(line) {
      write(line);
      return out.write(line);
    },
    get writableLength() {
      return out.writableLength ?? 0;
    },
  };
}

/** Those that were written last are kept: as many as `keep` says, and the one that is written now. */
function deleteOldest(folder: string, kind: string, keep: number): void {
  const files = readdirSync(folder)
    .filter((name) => name.startsWith(`${kind}-`) && name.endsWith(".log"))
    .map((name) => ({
      path: join(folder, name),
      at: statSync(join(folder, name), { throwIfNoEntry: false })?.mtimeMs ?? 0,
    }))
    .sort((one, other) => other.at - one.at);
  for (const { path } of files.slice(keep + 1)) rmSync(path, { force: true });
}
