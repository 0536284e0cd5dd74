import { confirm, isCancel } from "@clack/prompts";
import { failed, misused } from "../../config/errors.ts";
import { loadSettings } from "../../config/load.ts";
import { readSecrets } from "../../config/secrets.ts";
import { assertNobodyServes } from "../../db/backup/load.ts";
import type { Database } from "../../db/database.ts";
import { asOwner } from "../../db/grants.ts";
import { isEmbedded, openDatabase } from "../../db/open.ts";
import {
  findLastRestore,
  type InspectedBackup,
  inspectBackup,
  readPassphrase,
  restoreInto,
} from "../../server/features/backups/service.ts";
import { findInstalled } from "../../server/features/installation/service.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { systemRandom } from "../../server/ports/random.ts";
import type { CommandContext, Options, Outcome } from "../command.ts";
import { untilInterrupted } from "../interrupt.ts";
import { rowProgress } from "../progress.ts";
import { stageFiles } from "../restored-files.ts";

const PARTS = { clock: systemClock, random: systemRandom };

/** On a terminal it is asked about; elsewhere --yes is needed. */
export async function ask({ options }: CommandContext): Promise<Options> {
  if (options.yes) return options;
  const sure = await confirm({ message: `${CONSEQUENCE} Go on?`, initialValue: false, output: process.stderr });
  if (isCancel(sure) || !sure) throw failed("Cancelled; nothing was changed.");
  return { ...options, yes: true };
}

const CONSEQUENCE = "Everybody is logged out by a restore, and logs in again with their password of then.";

/**
 * Brings a backup back: reads it whole and tries passphrase and secrets first, then fills an empty database, or with
 * --force replaces what is there. Cut off anywhere, there is the old or the new, whole; the next run finishes.
 */
export const run = (context: CommandContext): Promise<Outcome> => untilInterrupted((stop) => restore(context, stop));

async function restore(context: CommandContext, stop: AbortSignal): Promise<Outcome> {
  const { options, home, environment } = context;
  if (!options.yes) throw misused(`A restore needs --yes. ${CONSEQUENCE}`);
  const file = context.arguments[0] ?? "";
  const staged = stageFiles(home, options);
  try {
    const early = loadSettings(staged.folder, environment, staged.flags);
    const passphrase = readPassphrase(
      typeof options.passphraseFile === "string" ? options.passphraseFile : undefined,
      home,
      early.settings,
    );
    const backup = { file, passphrase, secrets: readSecrets(early.variables), stop };
    const inspected = await inspectBackup(backup);
    staged.addSettings(inspected.manifest.settings);
    const { settings } = loadSettings(staged.folder, environment, staged.flags);
    const told = rowProgress(context.io, "Restoring");
    const fill = (db: Database) =>
      asOwner(settings, home, db, (owner) =>
        owner.longTransaction((connection) => restoreInto(connection, PARTS, backup, inspected, told)),
      );
    const done = isEmbedded(settings)
      ? await intoHome(context, inspected, fill, staged.keep)
      : await intoPostgres(await openDatabase(settings, home, false), context, inspected, fill, staged.keep);
    return describe(file, done, inspected);
  } finally {
    staged.remove();
  }
}

/** What came of it: where, and whether anything had to be done. */
interface Restored {
  readonly address: string;
  readonly changed: boolean;
}

async function intoHome(
  { home, options }: CommandContext,
  inspected: InspectedBackup,
  fill: (db: Database) => Promise<void>,
  keepFiles: () => void,
): Promise<Restored> {
  const { hasPglite, openPglite, replacePglite } = await import("../../db/pglite.ts");
  if (hasPglite(home)) {
    const db = await openPglite(home);
    const state = await stateOf(db, options, inspected).finally(() => db.close());
    if (state === "done") {
      keepFiles();
      return { address: home, changed: false };
    }
  }
  await replacePglite(home, fill, keepFiles);
  return { address: home, changed: true };
}

async function intoPostgres(
  db: Database,
  { options }: CommandContext,
  inspected: InspectedBackup,
  fill: (db: Database) => Promise<void>,
  keepFiles: () => void,
): Promise<Restored> {
  try {
    const state = await stateOf(db, options, inspected);
    if (state === "free") await fill(db);
    keepFiles();
    return { address: db.address, changed: state === "free" };
  } finally {
    await db.close();
  }
}

/**
 * Whether a database may be filled, or has been with this very backup.
 *
 * @throws OperatorError (exit 1) where an installation is in it and nobody said --force, or one is running on it
 */
async function stateOf(db: Database, options: Options, inspected: InspectedBackup): Promise<"free" | "done"> {
  const installed = await findInstalled(db);
  if (!installed) return "free";
  const known = await hasBackups(db);
  const last = known ? await findLastRestore(db.orm) : undefined;
  if (last?.id === inspected.manifest.id && !options.force) return "done";
  if (!options.force) {
    throw failed(
      `There is an installation in ${db.address} already. Nothing was changed.`,
      "Restore into another home or an empty database, or add --force to replace it.",
    );
  }
  await assertNobodyServes(db); // asked again once nobody can come; here it is told before the work
  return "free";
}

async function hasBackups(db: Database): Promise<boolean> {
  const [row] = await db.query<{ found: string | null }>("SELECT to_regclass('backups')::text AS found");
  return Boolean(row?.found);
}

function describe(file: string, { address, changed }: Restored, { manifest, rows }: InspectedBackup): Outcome {
  const { id, taken_at, primer } = manifest;
  const text = changed
    ? `Restored ${rows} rows of ${taken_at} into ${address}. Everybody logs in again.\nNext: primer serve\n`
    : `${address} was restored from ${file} already; nothing was changed. (--force does it again.)\n`;
  return { json: { id, file, taken_at, primer, rows, database: address, changed }, text };
}
