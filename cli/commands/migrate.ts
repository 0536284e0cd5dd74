import { EXIT } from "../../config/errors.ts";
import { loadSettings } from "../../config/load.ts";
import { readSecrets } from "../../config/secrets.ts";
import { migrate, migrationStatus } from "../../db/migrate.ts";
import { findInstalled } from "../../server/features/installation/service.ts";
import { openSecrets } from "../../server/features/keys/service.ts";
import { systemClock } from "../../server/ports/clock.ts";
import type { CommandContext, Outcome } from "../command.ts";
import { table } from "../io.ts";

/** Brings the schema up to date, or with --status tells how it stands and changes nothing. */
export async function run(context: CommandContext): Promise<Outcome> {
  const { settings, variables } = loadSettings(context.home, context.environment);
  return context.workspace.withDatabase(settings, async (database) => {
    if (context.options.status) {
      const migrations = await migrationStatus(database);
      const pending = migrations.filter((migration) => migration.state === "pending").length;
      const rows = migrations.map(({ name, state, applied_at }) => [name, state, applied_at ?? ""]);
      return {
        json: { database: database.address, pending, migrations },
        text: table(["MIGRATION", "STATE", "APPLIED"], rows),
        exitCode: EXIT.done,
      };
    }
    // Another installation's database is not ours to change.
    if (await findInstalled(database)) await openSecrets(database.orm, readSecrets(variables));
    const applied = await migrate(database, systemClock.now);
    const text = applied.length === 0 ? "The schema is up to date.\n" : `Applied ${applied.join(", ")}.\n`;
    return { json: { database: database.address, applied }, text };
  });
}
