import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { codeOf } from "../../config/errors.ts";
import type { Log } from "../../config/log.ts";
import type { Listener } from "./listener.ts";

/**
 * How often open files are counted (milliseconds): often enough that the connections of one interval fit into what is
 * reserved. Where the system has to be asked for each file, counting costs more than that.
 */
const LOOK_EVERY_MS = 20;
const LOOK_AT_EACH_EVERY_MS = 250;
/** How often it is found out anew, while there are many, which of the files are connections (milliseconds). */
const TELL_APART_EVERY_MS = 1000;
/** Listening begins again once there are fewer than this share of the connections allowed. */
const RESUME_BELOW = 0.9;
/** Open files that are kept for everything else (the database, new connections to it, the log): half where there are few. */
const RESERVED_FILES = 256;

/**
 * Sees to it that a process has no more connections than it may, and keeps room for other files: while it has too many it
 * does not listen, so that the system refuses further ones. Bun tells of no connection before its first request, and goes
 * on accepting until nothing can be opened any more, by anybody in the process. So open files are counted instead. Linux
 * alone tells of them; elsewhere nothing is bounded.
 *
 * @param maxConnections read at each look
 */
export function boundConnections(
  listener: Pick<Listener, "pause" | "resume">,
  maxConnections: () => number,
  log: Log,
): { stop(): void } {
  const ownSockets = countSockets();
  let others = countOpenFiles(); // than connections
  const possible = maxOpenFiles() - others;
  const filesAllowed = maxOpenFiles() - Math.min(RESERVED_FILES, Math.floor(possible / 2));
  const allowed = () => Math.min(maxConnections(), filesAllowed - others);
  if (allowed() < maxConnections()) {
    log.warn("The limit of open files allows fewer connections than server.max_connections", {
      event: "connections.few_files",
      allowed: allowed(),
    });
  }

  let toldApartAt = Number.NEGATIVE_INFINITY;
  /** The database opens files as it goes; telling them from connections takes too long for every look. */
  function tellApart(files: number): void {
    if (performance.now() - toldApartAt < TELL_APART_EVERY_MS) return;
    toldApartAt = performance.now();
    try {
      others = files - (countSockets() - ownSockets);
    } catch (error) {
      // No file left to look with: what was known before has to do.
      if (codeOf(error) !== "EMFILE") throw error;
    }
  }

  let isPaused = false;
  function look(): void {
    const files = countOpenFiles();
    if (isPaused || files - others > allowed()) tellApart(files);
    const connections = files - others;
    if (!isPaused && connections > allowed()) {
      listener.pause();
      isPaused = true;
      log.warn("Too many connections; refusing new ones", { event: "connections.full", connections });
    } else if (isPaused && connections < allowed() * RESUME_BELOW) {
      listener.resume();
      isPaused = false;
      log.info("Accepting connections again", { event: "connections.accepted_again", connections });
    }
  }
  /** One line when it begins and one when it ends: looks come fifty times a second. */
  let isFailing = false;
  const timer = setInterval(
    () => {
      try {
        look();
        if (isFailing) log.info("Connections are looked after again", { event: "connections.bounded_again" });
        isFailing = false;
      } catch (error) {
        if (!isFailing) log.error("Connections could not be looked after", { event: "connections.not_bounded", error });
        isFailing = true;
      }
    },
    folderSize() > 0 ? LOOK_EVERY_MS : LOOK_AT_EACH_EVERY_MS,
  );
  return { stop: () => clearInterval(timer) };
}

const FILES = "/proc/self/fd";

/** The number of open files, which Linux tells as the size of their folder since 6.2; 0 elsewhere. */
const folderSize = (): number => statSync(FILES, { throwIfNoEntry: false })?.size ?? 0;

const countOpenFiles = (): number => folderSize() || openFiles().length;

const countSockets = (): number => openFiles().filter(isSocket).length;

/** Their numbers; none where the system does not tell. */
function openFiles(): string[] {
  try {
    return readdirSync(FILES);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}

function isSocket(file: string): boolean {
  try {
    return readlinkSync(`${FILES}/${file}`).startsWith("socket:");
  } catch {
    return false; // closed since
  }
}

/** How many files this process may have open. */
function maxOpenFiles(): number {
  try {
    const limits = readFileSync("/proc/self/limits", "utf8");
    return Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
