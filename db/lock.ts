import { Database as Sqlite } from "bun:sqlite";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/**
 * The embedded database takes no lock on its folder, and two processes in it lose rows. This lock is the kernel's: a
 * write lock on a SQLite file, held open. It cannot be stolen while its holder lives, stalled or not, and is free the
 * moment the holder dies, however it dies.
 */
export interface FolderLock {
  release(): void;
}

const LOCK_FILE = "lock.sqlite";
const HOLDER_FILE = "lock.pid";

/**
 * Takes the lock of a home, or answers undefined at once where another process has it (see {@link lockHolder}).
 * Throws the system's error where the folder cannot be written.
 */
export function tryLockFolder(home: string): FolderLock | undefined {
  mkdirSync(home, { recursive: true, mode: 0o700 });
  const path = join(home, LOCK_FILE);
  createPrivately(path);
  const lock = new Sqlite(path);
  try {
    lock.run("PRAGMA busy_timeout = 0");
    lock.run("BEGIN IMMEDIATE");
    writeFileSync(join(home, HOLDER_FILE), String(process.pid), { mode: 0o600 });
  } catch (error) {
    lock.close();
    if ((error as { code?: string }).code === "SQLITE_BUSY") return undefined;
    throw error;
  }
  return { release: () => lock.close() };
}

/**
 * Whoever may read the file could keep us out, so it is made readable to nobody else. One that is there is never opened
 * here: closing it would give back the lock that this process may hold on it (POSIX, fcntl).
 */
function createPrivately(path: string): void {
  if (!existsSync(path)) closeSync(openSync(path, "a", 0o600));
}

/** The process id of whoever holds the lock of this home, as it wrote it down itself. */
export function lockHolder(home: string): number | undefined {
  try {
    return Number(readFileSync(join(home, HOLDER_FILE), "utf8")) || undefined;
  } catch {
    return undefined;
  }
}
