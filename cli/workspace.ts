import { join } from "node:path";
import { failed } from "../config/errors.ts";
import { type LoadedSettings, loadSettings, type Variables } from "../config/load.ts";
import type { Settings } from "../config/schema.ts";
import { readSecrets } from "../config/secrets.ts";
import type { Database } from "../db/database.ts";
import type { UserDeps } from "../server/features/users/service.ts";
import { type Io, yellow } from "./io.ts";

/** How a command gets at the database: opened for it alone, or the one that this process already owns. */
export interface WorkspaceSource {
  /**
   * Runs `work` on the database of these settings and closes it again if it was opened for that.
   *
   * @param options.create whether an embedded database is made where there is none
   */
  withDatabase<T>(
    settings: Settings,
    work: (database: Database) => Promise<T>,
    options?: { create: boolean },
  ): Promise<T>;
}

/** For a command that runs by itself. */
export const ownWorkspace = (home: string): WorkspaceSource => ({
  async withDatabase(settings, work, options = { create: false }) {
    const { openDatabase } = await import("../db/open.ts");
    const database = await openDatabase(settings, home, options.create);
    try {
      return await work(database);
    } finally {
      await database.close();
    }
  },
});

/** For commands that are run by the process that owns the database. */
export const heldWorkspace = (database: Database): WorkspaceSource => ({
  withDatabase: (_settings, work) => work(database),
});

export interface Place {
  readonly home: string;
  readonly environment: Variables;
  readonly workspace: WorkspaceSource;
  readonly io: Io;
}

/**
 * Runs `work` with what services need to work on users, on a database that is set up.
 *
 * @param statementMs the least that `database.statement_timeout` is while it runs
 */
export async function withUserDeps<T>(place: Place, work: (deps: UserDeps) => Promise<T>, statementMs = 0): Promise<T> {
  const loaded = loadSettings(place.home, place.environment);
  const { database } = loaded.settings;
  const statement_timeout = Math.max(database.statement_timeout, statementMs);
  const settings = { ...loaded.settings, database: { ...database, statement_timeout } };
  return place.workspace.withDatabase(settings, async (database) => {
    const { isMigrated } = await import("../db/migrate.ts");
    if (!(await isMigrated(database))) {
      throw failed(
        "The database is not set up yet, or needs to be migrated.",
        "Run `primer init`, or `primer migrate`.",
      );
    }
    return servicesOn(place, loaded, database, work);
  });
}

/** Runs `work` with services on an open and migrated database, which must be one of these secrets. */
export async function servicesOn<T>(
  { home, io }: Pick<Place, "home" | "io">,
  { settings, variables }: LoadedSettings,
  db: Database,
  work: (deps: UserDeps) => Promise<T>,
): Promise<T> {
  const [{ openJobQueue }, { openSecrets }, { createHashPool }, passwords, { systemClock }, { systemRandom }] =
    await Promise.all([
      import("../db/jobs.ts"),
      import("../server/features/keys/service.ts"),
      import("../server/features/passwords/hash-pool.ts"),
      import("../server/features/passwords/service.ts"),
      import("../server/ports/clock.ts"),
      import("../server/ports/random.ts"),
    ]);
  const { secrets } = await openSecrets(db.orm, readSecrets(variables));
  const jobs = await openJobQueue(db, {
    ring: () => secrets.master,
    bytes: systemRandom.bytes,
    id: () => systemRandom.id(systemClock.now()),
  });
  const hashPool = createHashPool(settings.password, systemClock);
  const breachCheck = passwords.createBreachCheck({
    settings: () => settings.password,
    filterPath: join(home, passwords.BREACH_FILTER_FILE),
    degraded: (reason) =>
      io.note(
        `${yellow(io, "!!")} The breached passwords could not be asked (${reason}); the password was allowed without.\n`,
      ),
  });
  try {
    return await work({ settings, db, secrets, jobs, hashPool, breachCheck, clock: systemClock, random: systemRandom });
  } finally {
    await jobs.close();
  }
}
