/** A disk of its own, small enough to fill. */
import { closeSync, ftruncateSync, mkdirSync, openSync, rmSync, statfsSync, writeSync } from "node:fs";
import { join } from "node:path";
import { scratchFolder } from "./processes.ts";

export interface Disk {
  readonly path: string;
  /** Takes all space but so many KiB. */
  fill(leaveKib: number): void;
  /** Gives back what `fill` took. */
  free(): void;
  usedKib(): number;
  remove(): void;
}

const mount = (...words: string[]) => Bun.spawnSync(["mount", ...words], { stdout: "ignore", stderr: "pipe" });

/** Why no disk can be mounted here; undefined where one can. */
export function whyNoDisk(): string | undefined {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return "mounting a small disk needs root on Linux";
  try {
    mountDisk(1).remove();
    return undefined;
  } catch (error) {
    return `no disk can be mounted: ${String(error)}`;
  }
}

export function mountDisk(sizeMib: number): Disk {
  const scratch = scratchFolder();
  const path = join(scratch.path, "disk");
  mkdirSync(path);
  const mounted = mount("-t", "tmpfs", "-o", `size=${sizeMib}m`, "primer-drill", path);
  if (mounted.exitCode !== 0) {
    scratch.remove();
    throw new Error(mounted.stderr.toString().trim());
  }
  const filler = join(path, "filler");
  const kib = (blocks: number) => (blocks * statfsSync(path).bsize) / 1024;
  return {
    path,
    fill(leaveKib) {
      const file = openSync(filler, "w");
      const block = Buffer.alloc(4096);
      let size = 0;
      try {
        for (;;) size += writeSync(file, block);
      } catch (error) {
        if ((error as { code?: string }).code !== "ENOSPC") throw error;
        ftruncateSync(file, Math.max(0, size - leaveKib * 1024));
      } finally {
        closeSync(file);
      }
    },
    free: () => rmSync(filler, { force: true }),
    usedKib() {
      const { blocks, bfree } = statfsSync(path);
      return kib(blocks - bfree);
    },
    remove() {
      Bun.spawnSync(["umount", "-l", path]);
      scratch.remove();
    },
  };
}
