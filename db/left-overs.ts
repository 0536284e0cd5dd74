import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

/** What nobody has written to for so long (milliseconds) is of a process that is gone, wherever it ran. */
const ABANDONED_MS = 86_400_000;

/** Whose process numbers these are: containers may share a host name and each count from one, and so may machines. */
export const PROCESSES = `${hostname().replace(/[^A-Za-z0-9-]/g, "-")}-${pidNamespace()}`;
const OWNER = /\.([A-Za-z0-9-]+)\.(\d+)$/;

/** What this process is at work on. */
const underWay = new Set<string>();

/** On Linux the boot of the kernel and the namespace; elsewhere (proc(5) is missing) the host name has to do. */
function pidNamespace(): string {
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    return createHash("sha256")
      .update(`${boot} ${readlinkSync("/proc/self/ns/pid")}`)
      .digest("hex")
      .slice(0, 16);
  } catch {
    return "0";
  }
}

/**
 * Names a file or folder that is there only while `work` goes on, after this process and where it runs: from what a
 * killed process has left, the next run there can tell what another one still works on.
 *
 * @param path the name without that, with its folder
 */
export async function withTemporary<T>(path: string, work: (path: string) => Promise<T>): Promise<T> {
  const own = `${path}.${PROCESSES}.${process.pid}`;
  underWay.add(own);
  try {
    return await work(own);
  } finally {
    underWay.delete(own);
    await rm(own, { recursive: true, force: true }).catch(() => {});
  }
}

/**
 * Removes what killed processes have left in a folder, as far as it is this user's. What cannot be removed stays.
 *
 * @param isMeant whether a name, without the process and where it runs, is one of those
 */
export async function removeLeftOvers(folder: string, now: Date, isMeant: (name: string) => boolean): Promise<void> {
  for (const name of namesIn(folder)) {
    const [owner = "", processes = "", pid] = OWNER.exec(name) ?? [];
    const path = join(folder, name);
    if (owner === "" || !isMeant(name.slice(0, -owner.length)) || underWay.has(path)) continue;
    const isGone = processes === PROCESSES && !isAlive(Number(pid));
    if (isLeft(path, isGone ? Number.POSITIVE_INFINITY : now.getTime() - ABANDONED_MS))
      await rm(path, { recursive: true, force: true }).catch(() => {});
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // whoever writes there says why that does not work
  }
}

/** Whether it was last written to before a time. In a folder that others write to, somebody else's is left alone. */
function isLeft(path: string, before: number): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found !== undefined && found.uid === process.getuid?.() && found.mtimeMs < before;
}

/** A process may have the number of one before it: what is this one's own is known. */
function isAlive(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as { code?: string }).code === "EPERM";
  }
}
