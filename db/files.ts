import { closeSync, fsyncSync, openSync } from "node:fs";

/** Brings the names in a folder to the disk, so that a rename outlives a power cut. */
export function syncFolder(path: string): void {
  const folder = openSync(path, "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}
