import { readdirSync, readFileSync, statSync } from "node:fs";
import { codeOf } from "../../config/errors.ts";
import type { Log } from "../../config/log.ts";
import type { Listener } from "./listener.ts";

/**
 * How often connections are counted (milliseconds): often enough that those of one interval fit into what is reserved.
 * Where the system has to be asked for each open file, counting costs more than that.
 */
const LOOK_EVERY_MS = 20;
const LOOK_AT_EACH_EVERY_MS = 250;
/** Listening begins again once there are fewer than this share of the connections allowed. */
const RESUME_BELOW = 0.9;
/** Open files that are kept for everything else (the database, new connections to it, the log): half where there are few. */
const RESERVED_FILES = 256;

/**
 * Sees to it that a process has no more connections than it may: while it has, it does not listen, so that further ones
 * are refused by the system. Bun counts no connections and goes on accepting until no file can be opened any more, by
 * anything. What is counted are the process's open files beyond those it began with, which is every connection and little
 * else; where the system does not tell (Windows), nothing is bounded.
 *
 * @param maxConnections read at each look
 */
export function boundConnections(
  listener: Pick<Listener, "pause" | "resume">,
  maxConnections: () => number,
  log: Log,
): { stop(): void } {
  const own = countOpenFiles();
  const possible = maxOpenFiles() - own;
  const spare = Math.min(RESERVED_FILES, Math.floor(possible / 2));
  const max = () => Math.min(maxConnections(), possible - spare);
  if (max() < maxConnections()) {
    log.warn("The limit of open files allows fewer connections than server.max_connections", {
      event: "connections.few_files",
      allowed: max(),
    });
  }

  let isPaused = false;
  function look(): void {
    const connections = countOpenFiles() - own;
    if (!isPaused && connections > max()) {
      listener.pause();
      isPaused = true;
      log.warn("Too many connections; refusing new ones", { event: "connections.full", connections });
    } else if (isPaused && connections < max() * RESUME_BELOW) {
      listener.resume();
      isPaused = false;
      log.info("Accepting connections again", { event: "connections.accepted_again", connections });
    }
  }
  const timer = setInterval(
    () => {
      try {
        look();
      } catch (error) {
        log.error("Connections could not be looked after", { event: "connections.not_bounded", error });
      }
    },
    folderSize() > 0 ? LOOK_EVERY_MS : LOOK_AT_EACH_EVERY_MS,
  );
  return { stop: () => clearInterval(timer) };
}

/** Linux tells the number of open files as the size of this folder, since 6.2; 0 elsewhere. */
const folderSize = (): number => statSync("/proc/self/fd", { throwIfNoEntry: false })?.size ?? 0;

/** 0 where the system does not tell. */
function countOpenFiles(): number {
  try {
    return folderSize() || readdirSync("/dev/fd").length;
  } catch (error) {
    // No file left to read the folder with: there are as many as there can be.
    return codeOf(error) === "EMFILE" ? Number.POSITIVE_INFINITY : 0;
  }
}

/** How many files this process may have open. */
function maxOpenFiles(): number {
  try {
    return (
      Number(/^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1] ?? Number.NaN) ||
      Number.POSITIVE_INFINITY
    );
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
