/** A PostgreSQL that a drill may stop and start as it likes. */
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { $ } from "bun";
import { freePort } from "../support/services.ts";
import { scratchFolder } from "./processes.ts";

const PACKAGES = "/usr/lib/postgresql";

function binaries(): string | undefined {
  const versions = existsSync(PACKAGES) ? readdirSync(PACKAGES).sort((a, b) => Number(b) - Number(a)) : [];
  return versions.map((version) => join(PACKAGES, version, "bin")).find((folder) => existsSync(join(folder, "initdb")));
}

export const whyNoPostgres = (): string | undefined =>
  binaries() ? undefined : "a PostgreSQL that may be stopped needs its binaries on this machine";

export interface OwnPostgres {
  readonly url: string;
  /** As if its machine had died: no connection is closed in order. */
  crash(): Promise<void>;
  start(): Promise<void>;
  /** Stops every process of it without ending it: it answers nothing, and refuses nothing. */
  freeze(): Promise<void>;
  thaw(): Promise<void>;
  remove(): Promise<void>;
}

/**
 * @param tls the certificate and key that it serves TLS with; without them it serves none
 * @param settings of the server, beside its defaults
 */
export async function ownPostgres({
  tls,
  settings = {},
}: {
  tls?: { cert: string; key: string };
  settings?: Readonly<Record<string, string>>;
} = {}): Promise<OwnPostgres> {
  const folder = binaries() ?? "";
  const scratch = scratchFolder();
  const data = join(scratch.path, "data");
  const port = await freePort();
  const user = process.getuid?.() === 0 ? ["runuser", "-u", "postgres", "--"] : [];
  if (user.length > 0) await $`chown postgres ${scratch.path}`.quiet();
  await $`${user} ${folder}/initdb -D ${data} -U primer -A trust -E UTF8 --no-sync`.quiet();
  const encrypted = tls ? await certificateOptions(scratch.path, user, tls) : "";
  const more = Object.entries(settings).map(([name, value]) => ` -c ${name}=${value}`);
  const options = `-p ${port} -c listen_addresses=127.0.0.1,127.0.0.2 -c unix_socket_directories=${scratch.path}${encrypted}${more.join("")}`;
  const start = async () => {
    await $`${user} ${folder}/pg_ctl -D ${data} -o ${options} -l ${join(scratch.path, "log")} -w start`.quiet();
  };
  const crash = async () => {
    await $`${user} ${folder}/pg_ctl -D ${data} -m immediate stop`.quiet();
  };
  /** The postmaster and every process that it has started. */
  const pids = async () => {
    const postmaster = (await Bun.file(join(data, "postmaster.pid")).text()).split("\n")[0] ?? "";
    const children = await $`pgrep -P ${postmaster}`.quiet().nothrow().text();
    return [postmaster, ...children.split("\n")].filter((pid) => pid !== "").map(Number);
  };
  let frozen: number[] = [];
  const thaw = async () => {
    for (const pid of frozen) process.kill(pid, "SIGCONT");
    frozen = [];
  };
  await start();
  return {
    url: `postgres://primer@127.0.0.1:${port}/postgres`,
    crash,
    start,
    async freeze() {
      frozen = await pids();
      for (const pid of frozen) process.kill(pid, "SIGSTOP");
    },
    thaw,
    async remove() {
      await thaw();
      await crash().catch(() => {});
      scratch.remove();
    },
  };
}

async function certificateOptions(folder: string, user: readonly string[], tls: { cert: string; key: string }) {
  const [cert, key] = [join(folder, "server.crt"), join(folder, "server.key")];
  writeFileSync(cert, tls.cert);
  writeFileSync(key, tls.key, { mode: 0o600 });
  if (user.length > 0) await $`chown postgres ${cert} ${key}`.quiet();
  return ` -c ssl=on -c ssl_cert_file=${cert} -c ssl_key_file=${key}`;
}
