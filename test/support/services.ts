/**
 * The real servers that suites run against: from TEST_DATABASE_URL, else from binaries on this machine, else from a
 * container where a Docker engine answers.
 */
import { existsSync, mkdtempSync, readdirSync, rmSync, statfsSync } from "node:fs";
import { createServer } from "node:net";
import { freemem, tmpdir } from "node:os";
import { join } from "node:path";
import { $ } from "bun";

export interface Service {
  readonly url: string;
  stop(): Promise<void>;
}

/** A TCP port that is free now. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

/** The folder of the newest PostgreSQL that Debian has installed here. */
export function postgresBinaries(): string | undefined {
  const root = "/usr/lib/postgresql";
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : [];
  return versions.map((version) => join(root, version, "bin")).find((folder) => existsSync(join(folder, "initdb")));
}

/** A PostgreSQL of our own on a free port; undefined where this machine has none. */
export async function startPostgres(): Promise<Service | undefined> {
  if (process.env.TEST_DATABASE_URL) return { url: process.env.TEST_DATABASE_URL, stop: async () => {} };
  const binaries = postgresBinaries();
  return binaries ? startLocalPostgres(binaries) : startContainer();
}

/** The server refuses to run as root, so root hands it to the user that its package made. */
export const asServerUser = (process.getuid?.() === 0 ? ["runuser", "-u", "postgres", "--"] : []) as string[];

const IN_MEMORY = "/dev/shm";
const ROOM_BYTES = 2 * 1024 ** 3;

/** Memory where the system has a file system in it with room enough: suites make a database for each of hundreds of tests. */
function quickestFolder(): string {
  if (!existsSync(IN_MEMORY)) return tmpdir();
  const { bavail, bsize } = statfsSync(IN_MEMORY);
  return Math.min(bavail * bsize, freemem()) >= ROOM_BYTES ? IN_MEMORY : tmpdir();
}

async function startLocalPostgres(binaries: string): Promise<Service> {
  const folder = mkdtempSync(join(quickestFolder(), "primer-postgres-"));
  if (asServerUser.length > 0) await $`chown postgres ${folder}`.quiet();
  const data = join(folder, "data");
  const port = await freePort();
  const options = `-p ${port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=${folder} -c fsync=off -c max_connections=200`;
  await $`${asServerUser} ${binaries}/initdb -D ${data} -U primer -A trust -E UTF8 --no-sync`.quiet();
  await $`${asServerUser} ${binaries}/pg_ctl -D ${data} -o ${options} -l ${join(folder, "log")} -w start`.quiet();
  return {
    url: `postgres://primer@127.0.0.1:${port}/postgres`,
    async stop() {
      await $`${asServerUser} ${binaries}/pg_ctl -D ${data} -m immediate stop`.quiet().nothrow();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function startContainer(): Promise<Service | undefined> {
  const docker = await $`docker info`.quiet().nothrow();
  if (docker.exitCode !== 0) return undefined;
  const { GenericContainer } = await import("testcontainers");
  const container = await new GenericContainer("postgres:15")
    .withEnvironment({ POSTGRES_USER: "primer", POSTGRES_PASSWORD: "primer" })
    .withExposedPorts(5432)
    .start();
  return {
    url: `postgres://primer:primer@${container.getHost()}:${container.getMappedPort(5432)}/postgres`,
    stop: async () => void (await container.stop()),
  };
}
