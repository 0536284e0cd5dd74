import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { failed, OperatorError } from "../../config/errors.ts";
import { type LoadedSettings, loadSettings, SETTINGS_FILE } from "../../config/load.ts";
import { createLog } from "../../config/log.ts";
import { readSecrets, type Secrets } from "../../config/secrets.ts";
import { readPassphrase, recordVerified, takeBackup } from "../../server/features/backups/service.ts";
import { openSecrets } from "../../server/features/keys/service.ts";
import { systemClock } from "../../server/ports/clock.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { verifyBackup } from "../../server/verify-backup.ts";
import type { CommandContext, Outcome } from "../command.ts";
import { hasSocket, runInHolder } from "../holder.ts";
import { untilInterrupted } from "../interrupt.ts";
import { rowProgress } from "../progress.ts";
import { readSecretsAt } from "../restored-files.ts";

const BY_OPERATOR = { kind: "operator" } as const;
const PARTS = { clock: systemClock, random: systemRandom };

/** Takes a backup, or with --verify proves one. */
export async function run(context: CommandContext): Promise<Outcome> {
  const loaded = loadSettings(context.home, context.environment);
  if (typeof context.options.record === "string") return record(context, loaded, context.options.record);
  const file = resolve(context.arguments[0] ?? "");
  const passphrase = readPassphrase(textOption(context.options.passphraseFile), context.home, loaded.settings);
  return context.options.verify ? verify(context, loaded, file, passphrase) : take(context, loaded, file, passphrase);
}

const textOption = (value: unknown) => (typeof value === "string" ? value : undefined);

async function take(
  context: CommandContext,
  loaded: LoadedSettings,
  file: string,
  passphrase: string,
): Promise<Outcome> {
  return context.workspace.withDatabase(loaded.settings, async (db) => {
    // A backup that these secrets do not open would be worth nothing.
    await openSecrets(db.orm, readSecrets(loaded.variables));
    const settingsPath = join(context.home, SETTINGS_FILE);
    const settingsText = existsSync(settingsPath) ? readFileSync(settingsPath, "utf8") : null;
    const progress = rowProgress(context.io, "Reading");
    const taken = await untilInterrupted((stop) => {
      const told = (rows: number) => {
        if (stop.aborted) throw failed("Interrupted; no backup was written.");
        progress(rows);
      };
      return takeBackup({ db, ...PARTS }, { file, passphrase, settingsText, actor: BY_OPERATOR, told });
    });
    const { id, takenAt, rows, bytes, sha256, seconds, tables } = taken;
    const counts = Object.fromEntries(Object.entries(tables).map(([table, sum]) => [table, sum.rows]));
    return {
      json: { id, file, taken_at: takenAt.toISOString(), rows, bytes, sha256, seconds, tables: counts },
      text: `Wrote ${file}: ${rows} rows, ${bytes} bytes, in ${seconds} s.\nsecrets.env is not in it: keep a copy of that apart. Prove it with: primer backup --verify ${file}\n`,
    };
  });
}

/** The proof needs no database of ours, so it is done here; that it was given is kept by whoever has the database. */
async function verify(
  context: CommandContext,
  loaded: LoadedSettings,
  file: string,
  passphrase: string,
): Promise<Outcome> {
  const secrets = secretsFrom(textOption(context.options.secrets), loaded);
  const log = createLog(() => "error", { write: (line) => context.io.note(line) }, systemClock.now);
  const told = rowProgress(context.io, "Restoring to a scratch place");
  const verified = await untilInterrupted((stop) =>
    verifyBackup({ settings: loaded.settings, log, ...PARTS }, { file, passphrase, secrets, stop }, told),
  );
  const { id, taken_at, primer } = verified.manifest;
  const recorded = await recordAnywhere(context, loaded, id);
  const { rows, seconds } = verified;
  const whose = recorded ? "" : " It is not one that this installation took, so nothing was recorded.";
  return {
    json: { id, file, taken_at, primer, rows, seconds, verified: true, recorded },
    text: `${file} holds: ${rows} rows of ${taken_at} were restored to a scratch place, and a login, a refresh and a verification worked there, in ${seconds} s.${whose}\n`,
  };
}

function secretsFrom(path: string | undefined, loaded: LoadedSettings): Secrets {
  return readSecrets(path === undefined ? loaded.variables : readSecretsAt(path));
}

async function recordAnywhere(context: CommandContext, loaded: LoadedSettings, id: string): Promise<boolean> {
  try {
    return await recordHere(context, loaded, id);
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    if (error.reason !== "held" || !hasSocket(context.home)) return false; // there is no installation here
    const words = { arguments: context.arguments, options: { record: id } };
    const answers: string[] = [];
    const io = { ...context.io, out: (text: string) => void answers.push(text) };
    const exitCode = await runInHolder(context.home, "backup", words, io);
    return exitCode === 0 && answers.join("") === RECORDED;
  }
}

const RECORDED = "recorded\n";

const recordHere = (context: CommandContext, { settings }: LoadedSettings, id: string) =>
  context.workspace.withDatabase(settings, (db) =>
    recordVerified({ db, ...PARTS }, id, systemClock.now(), BY_OPERATOR),
  );

const record = async (context: CommandContext, loaded: LoadedSettings, id: string): Promise<Outcome> => {
  const recorded = await recordHere(context, loaded, id);
  return { json: { recorded }, text: recorded ? RECORDED : "" };
};
