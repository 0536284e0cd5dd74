import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { SETTINGS_FILE } from "../../config/load.ts";
import type { Log } from "../../config/log.ts";
import type { Settings } from "../../config/schema.ts";
import type { Secrets } from "../../config/secrets.ts";
import {
  type BackupDeps,
  readPassphrase,
  recordVerified,
  type TakenBackup,
  takeBackup,
} from "../../server/features/backups/service.ts";
import { verifyBackup } from "../../server/verify-backup.ts";

export interface ScheduledBackupDeps extends BackupDeps {
  readonly settings: Settings;
  readonly secrets: Secrets;
  readonly home: string;
  readonly log: Log;
}

const BY_SCHEDULE = { kind: "system" } as const;
const NAME = /^primer-\d{8}T\d{6}Z\.backup$/;

/**
 * Takes the backup of the day into `backup.folder`, proves it where `backup.verify` says so, and then removes those
 * beyond `backup.keep`: as long as none is proven, the old ones stay.
 *
 * @returns undefined where no folder is set
 * @throws OperatorError saying why there is no backup, or why it does not hold
 */
export async function runScheduledBackup(deps: ScheduledBackupDeps): Promise<TakenBackup | undefined> {
  const { settings, home, log } = deps;
  if (settings.backup.folder === "") return undefined;
  const folder = resolve(home, settings.backup.folder);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const passphrase = readPassphrase(undefined, home, settings);
  const time = deps.clock
    .now()
    .toISOString()
    .replace(/\.\d+|[-:]/g, "");
  const file = join(folder, `primer-${time}.backup`);
  const settingsPath = join(home, SETTINGS_FILE);
  const settingsText = existsSync(settingsPath) ? readFileSync(settingsPath, "utf8") : null;
  const taken = await takeBackup(deps, { file, passphrase, settingsText, actor: BY_SCHEDULE, told() {} });
  log.info("A backup was taken", { event: "backup.taken", file, rows: taken.rows, bytes: taken.bytes });
  if (settings.backup.verify) {
    await verifyBackup(deps, { file, passphrase, secrets: deps.secrets }, () => {});
    await recordVerified(deps, taken.id, deps.clock.now(), BY_SCHEDULE);
    log.info("A backup was verified", { event: "backup.verified", file });
  }
  for (const name of outdated(readdirSync(folder), settings.backup.keep)) rmSync(join(folder, name), { force: true });
  return taken;
}

const outdated = (names: readonly string[], keep: number): string[] =>
  names
    .filter((name) => NAME.test(name))
    .sort()
    .slice(0, -keep);
