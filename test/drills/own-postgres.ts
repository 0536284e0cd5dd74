/** A PostgreSQL that a drill may stop and start as it likes. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { $ } from "bun";
import { asServerUser, freePort, postgresBinaries } from "../support/services.ts";
import { scratchFolder } from "./processes.ts";

export const whyNoPostgres = (): string | undefined =>
  postgresBinaries() ? undefined : "a PostgreSQL that may be stopped needs its binaries on this machine";

export interface OwnPostgres {
  readonly url: string;
  /** As if its machine had died: no connection is closed in order. */
  crash(): Promise<void>;
  start(): Promise<void>;
  /** Stops every process of it without ending it: it answers nothing, and refuses nothing. */
  freeze(): Promise<void>;
  thaw(): Promise<void>;
  /** A streaming replica of it, running; to be removed before it. */
  replica(): Promise<OwnPostgres>;
  remove(): Promise<void>;
}

interface ServerOptions {
  /** The certificate and key that it serves TLS with; without them it serves none. */
  readonly tls?: { cert: string; key: string };
  /** Of the server, beside its defaults. */
  readonly settings?: Readonly<Record<string, string>>;
}

export async function ownPostgres(options: ServerOptions = {}): Promise<OwnPostgres> {
  return runPostgres(options, async (data) => {
    await $`${asServerUser} ${postgresBinaries()}/initdb -D ${data} -U primer -A trust -E UTF8 --no-sync`.quiet();
  });
}

async function runPostgres(serverOptions: ServerOptions, make: (data: string) => Promise<void>): Promise<OwnPostgres> {
  const { tls, settings = {} } = serverOptions;
  const folder = postgresBinaries() ?? "";
  const scratch = scratchFolder();
  const data = join(scratch.path, "data");
  const port = await freePort();
  if (asServerUser.length > 0) await $`chown postgres ${scratch.path}`.quiet();
  await make(data);
  const encrypted = tls ? await certificateOptions(scratch.path, tls) : "";
  const more = Object.entries(settings).map(([name, value]) => ` -c ${name}=${value}`);
  const options = `-p ${port} -c listen_addresses=127.0.0.1,127.0.0.2 -c unix_socket_directories=${scratch.path}${encrypted}${more.join("")}`;
  const start = async () => {
    await $`${asServerUser} ${folder}/pg_ctl -D ${data} -o ${options} -l ${join(scratch.path, "log")} -w start`.quiet();
  };
  const crash = async () => {
    await $`${asServerUser} ${folder}/pg_ctl -D ${data} -m immediate stop`.quiet();
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
    replica: () =>
      runPostgres(serverOptions, async (copy) => {
        const from = ["-h", "127.0.0.1", "-p", String(port), "-U", "primer"];
        await $`${asServerUser} ${folder}/pg_basebackup ${from} -D ${copy} -R -c fast --no-sync`.quiet();
      }),
    async remove() {
      await thaw();
      await crash().catch(() => {});
      scratch.remove();
    },
  };
}

async function certificateOptions(folder: string, tls: { cert: string; key: string }) {
  const [cert, key] = [join(folder, "server.crt"), join(folder, "server.key")];
  writeFileSync(cert, tls.cert);
  writeFileSync(key, tls.key, { mode: 0o600 });
  if (asServerUser.length > 0) await $`chown postgres ${cert} ${key}`.quiet();
  return ` -c ssl=on -c ssl_cert_file=${cert} -c ssl_key_file=${key}`;
}
