import { closeSync, openSync } from "node:fs";
import { join, relative } from "node:path";

/** Longer paths do not fit into the address of a Unix socket. */
const MAX_SOCKET_PATH = 100;

/**
 * A path to a Unix socket in a folder that fits into a socket's address, however deep the folder is. It is good until
 * `use` is done: a request connects some time after it was begun.
 */
export async function withSocketPath<T>(
  folder: string,
  name: string,
  use: (path: string) => T | Promise<T>,
): Promise<T> {
  const path = join(folder, name);
  const candidates = [path, relative(process.cwd(), path)].sort((a, b) => a.length - b.length);
  if ((candidates[0] ?? "").length <= MAX_SOCKET_PATH) return await use(candidates[0] ?? path);
  const opened = openSync(folder, "r");
  try {
    return await use(`/proc/self/fd/${opened}/${name}`);
  } finally {
    closeSync(opened);
  }
}
