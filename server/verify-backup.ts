import { statfsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { failed } from "../config/errors.ts";
import type { Log } from "../config/log.ts";
import type { Settings } from "../config/schema.ts";
import type { Database } from "../db/database.ts";
import { removeLeftOvers, withTemporary } from "../db/left-overs.ts";
import { createApp } from "./app.ts";
import { type BackupFile, type InspectedBackup, inspectBackup, restoreInto } from "./features/backups/service.ts";
import { createUser } from "./features/users/service.ts";
import type { Clock } from "./ports/clock.ts";
import type { Random } from "./ports/random.ts";
import { openDeps } from "./start.ts";

export interface VerifyDeps {
  readonly settings: Settings;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface VerifiedBackup extends InspectedBackup {
  readonly seconds: number;
}

/**
 * Proves a backup by using it: reads it whole, restores it to an embedded database in a temporary folder, makes a user
 * there, and has them log in, refresh and be verified by the application itself. The installation is not touched, and
 * nothing is left; what killed processes have left goes too.
 *
 * @throws OperatorError saying what does not hold: exit 1, or exit 2 where passphrase or secrets are not the ones
 */
export async function verifyBackup(
  deps: VerifyDeps,
  backup: BackupFile,
  told: (rows: number) => void,
): Promise<VerifiedBackup> {
  const began = deps.clock.elapsed();
  const inspected = await inspectBackup(backup);
  assertRoom(backup.file);
  await removeLeftOvers(tmpdir(), deps.clock.now(), (name) => name.startsWith(SCRATCH));
  await withTemporary(join(tmpdir(), `${SCRATCH}${deps.random.id(deps.clock.now())}`), async (scratch) => {
    await mkdir(scratch, { mode: 0o700 });
    const { openPglite } = await import("../db/pglite.ts");
    const db = await openPglite(scratch);
    try {
      await db.longTransaction((connection) => restoreInto(connection, deps, backup, inspected, told));
      await useOnce(deps, backup, db, scratch);
    } finally {
      await db.close();
    }
  });
  return { ...inspected, seconds: Math.round(deps.clock.elapsed() - began) / 1000 };
}

const SCRATCH = "primer-verify-";

/** Rows with their indexes, uncompressed, and what an empty database takes with its log. */
const TIMES_ITS_SIZE = 10;
const LEAST_ROOM_BYTES = 128 * 1024 * 1024;

/** A database that runs out of room ends its process, which may be a server. */
function assertRoom(file: string): void {
  const { bavail, bsize } = statfsSync(tmpdir());
  const needed = LEAST_ROOM_BYTES + TIMES_ITS_SIZE * Bun.file(file).size;
  if (bavail * bsize >= needed) return;
  throw failed(
    `There is no room in ${tmpdir()} to restore this backup to: it takes about ${Math.ceil(needed / 2 ** 20)} MiB.`,
    "Free some space, or name another folder in TMPDIR. Nothing is wrong with the backup so far.",
  );
}

/** Of the installation's settings, what would reach for its neighbours is left out. */
const alone = (settings: Settings): Settings => ({
  ...settings,
  database: { ...settings.database, url: "", replica_urls: [] },
  redis: { ...settings.redis, url: "" },
  password: { ...settings.password, hibp: "off" },
  tokens: { ...settings.tokens, fingerprint: false },
});

async function useOnce(parts: VerifyDeps, { secrets }: BackupFile, db: Database, home: string): Promise<void> {
  const deps = await openDeps({ ...parts, settings: alone(parts.settings), secrets, db, home });
  try {
    const app = createApp(deps);
    const name = `probe-${Buffer.from(parts.random.bytes(8)).toString("hex")}`;
    const password = `${parts.random.token()}aA1-`;
    await createUser(
      deps,
      { username: name, email: `${name}@primer.invalid`, password, roles: ["user"] },
      { actor: { kind: "operator" } },
    );
    const ask = async (what: string, path: string, init: RequestInit) => {
      const response: Response = await app.handle(new Request(`http://localhost/api/v1/auth/${path}`, init));
      if (response.ok) return (await response.json()) as { access_token: string; refresh_token: string };
      throw failed(
        `The backup was restored to a scratch place, but there a ${what} was answered ${response.status}: ${await response.text()}`,
        "Do not rely on this backup. Take another one, and report this.",
      );
    };
    const post = (body: unknown) => ({
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const first = await ask("login", "login", post({ username: name, password }));
    const next = await ask("refresh", "refresh", post({ refresh_token: first.refresh_token }));
    await ask("verification", "verify", { headers: { authorization: `Bearer ${next.access_token}` } });
  } finally {
    await deps.close();
  }
}
