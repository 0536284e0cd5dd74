/** What `serve` and `worker` have in common: they need a finished installation, and run until they are told to stop. */
import { failed, misused, textOf } from "../config/errors.ts";
import type { LoadedSettings } from "../config/load.ts";
import type { Log } from "../config/log.ts";
import { readSecrets, type Secrets } from "../config/secrets.ts";
import type { Database } from "../db/database.ts";
import { isMigrated } from "../db/migrate.ts";
import { openSecrets } from "../server/features/keys/service.ts";

/** The secrets that this process was started with, which open this database; exit 2 where it was not set up to the end. */
export async function secretsOfInstallation(home: string, loaded: LoadedSettings, db: Database): Promise<Secrets> {
  const notSetUp = () =>
    misused(`${home} is not initialised yet.`, "Run `primer init` first; after an upgrade `primer migrate`.");
  if (!(await isMigrated(db))) throw notSetUp();
  const secrets = readSecrets(loaded.variables);
  const { installation } = await openSecrets(db.orm, secrets);
  if (!installation?.initialisedAt) throw notSetUp();
  return secrets;
}

/** Resolves at SIGTERM or SIGINT; rejects where something was thrown that nobody caught, since then nothing is certain. */
export function untilStopped(log: Log): Promise<void> {
  return new Promise((resolve, reject) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.once(signal, () => {
        log.info("Stopping", { event: "process.stopping", signal });
        resolve();
      });
    }
    process.on("uncaughtException", (error) => {
      log.error("An error that nobody caught; stopping", { event: "process.crashed", error });
      reject(failed(`primer stopped on an error that nobody caught: ${textOf(error)}`));
    });
    // One forgotten promise is no reason to end everything else.
    process.on("unhandledRejection", (error) => {
      log.error("A promise was rejected and nobody cared", { event: "process.unhandled_rejection", error });
    });
  });
}
