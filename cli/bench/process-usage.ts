/** What a server costs, as Linux tells it in /proc: the process and all that it has started. */
import { existsSync, readdirSync, readFileSync } from "node:fs";

export interface Usage {
  /** Processor time so far. */
  readonly cpuSeconds: number;
  /** Resident now, of all of them together; what they share counts in each. */
  readonly residentMiB: number;
  readonly processes: number;
}

/** Of Linux, on every architecture that it is built for here (sysconf(_SC_CLK_TCK)). */
const TICKS_PER_SECOND = 100;

/** How a process and its children stand; undefined where the system does not tell. */
export function usageOf(pid: number): Usage | undefined {
  if (!existsSync(`/proc/${pid}/stat`)) return undefined;
  const processes = treeOf(pid);
  const each = processes.flatMap((process) => usageOfOne(process) ?? []);
  const sum = (of: (usage: { cpuSeconds: number; residentMiB: number }) => number) =>
    each.reduce((total, usage) => total + of(usage), 0);
  return { cpuSeconds: sum((u) => u.cpuSeconds), residentMiB: sum((u) => u.residentMiB), processes: each.length };
}

function treeOf(pid: number): number[] {
  return [pid, ...childrenOf(pid).flatMap(treeOf)];
}

function childrenOf(pid: number): number[] {
  return orNothing(() => readdirSync(`/proc/${pid}/task`)).flatMap((task) =>
    orNothing(() => readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").trim().split(" "))
      .filter((text) => text !== "")
      .map(Number),
  );
}

function usageOfOne(pid: number) {
  const [stat] = orNothing(() => [readFileSync(`/proc/${pid}/stat`, "utf8")]);
  const [status] = orNothing(() => [readFileSync(`/proc/${pid}/status`, "utf8")]);
  if (stat === undefined || status === undefined) return [];
  // The name of the program, which may hold anything, stands in brackets before the fields.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const cpuSeconds = (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  return [{ cpuSeconds, residentMiB: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024 }];
}

/** A process may end while it is looked at. */
function orNothing<T>(read: () => T[]): T[] {
  try {
    return read();
  } catch {
    return [];
  }
}
