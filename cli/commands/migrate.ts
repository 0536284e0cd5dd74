import { EXIT } from "../../config/errors.ts";
import { loadSettings } from "../../config/load.ts";
import { readSecrets } from "../../config/secrets.ts";
import type { Database } from "../../db/database.ts";
import { asOwner } from "../../db/grants.ts";
import { isMigrated, migrate, migrationStatus, pendingMigrations } from "../../db/migrate.ts";
import { openOwner } from "../../db/open.ts";
import { rehearseMigrations } from "../../db/rehearse.ts";
import { audit } from "../../server/features/audit/service.ts";
import { findInstalled } from "../../server/features/installation/service.ts";
import { openSecrets } from "../../server/features/keys/service.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { systemRandom } from "../../server/ports/random.ts";
import type { CommandContext, Outcome } from "../command.ts";
import { table } from "../io.ts";

const PARTS = { clock: systemClock, random: systemRandom };

/** Brings the schema up to date. With --status it tells how it stands, with --check it rehearses; both change nothing. */
export async function run(context: CommandContext): Promise<Outcome> {
  const { settings, variables } = loadSettings(context.home, context.environment);
  return context.workspace.withDatabase(settings, async (database) => {
    if (context.options.status) return status(database);
    // Another installation's database is not ours to change.
    if (await findInstalled(database)) await openSecrets(database.orm, readSecrets(variables));
    if (context.options.check) {
      const owner = await openOwner(settings, context.home, database);
      return check(owner.database).finally(() => owner.close());
    }
    // Whoever owns the tables is not needed where nothing is to be done.
    const isUpToDate =
      settings.database.admin_url === "" &&
      (await pendingMigrations(database)).length === 0 &&
      (await isMigrated(database));
    const applied = isUpToDate
      ? []
      : await asOwner(settings, context.home, database, (owner) => migrate(owner, systemClock.now));
    if (applied.length > 0 && (await findInstalled(database))) await record(database, applied);
    const text = applied.length === 0 ? "The schema is up to date.\n" : `Applied ${applied.join(", ")}.\n`;
    return { json: { database: database.address, applied }, text };
  });
}

const record = (database: Database, applied: readonly string[]) =>
  database.transaction((tx) =>
    audit(tx, PARTS, {
      action: "schema.migrated",
      outcome: "success",
      actor: { kind: "operator" },
      details: { applied },
    }),
  );

async function status(database: Database): Promise<Outcome> {
  const migrations = await migrationStatus(database);
  const pending = migrations.filter((migration) => migration.state === "pending").length;
  const rows = migrations.map(({ name, state, applied_at }) => [name, state, applied_at ?? ""]);
  return {
    json: { database: database.address, pending, migrations },
    text: table(["MIGRATION", "STATE", "APPLIED"], rows),
    exitCode: EXIT.done,
  };
}

async function check(database: Database): Promise<Outcome> {
  const migrations = await rehearseMigrations(database);
  const goesThrough = migrations.every(({ problem }) => problem === null);
  const rows = migrations.map(({ name, ms, locks, problem }) => [
    name,
    `${ms} ms`,
    locks.map(({ table, blocks, held_ms }) => `${blocks} of ${table} for ${held_ms} ms`).join(", ") || "nobody",
    problem ?? "goes through",
  ]);
  return {
    json: { database: database.address, ok: goesThrough, migrations },
    text:
      migrations.length === 0
        ? "The schema is up to date; there is nothing to rehearse.\n"
        : `${table(["MIGRATION", "TAKES", "BLOCKS", "OUTCOME"], rows)}It was undone: nothing was changed.\n`,
    exitCode: goesThrough ? EXIT.done : EXIT.failed,
  };
}
