import { misused } from "../../../config/errors.ts";
import type { Keyring } from "../../../config/secrets.ts";
import type { Database, Tx } from "../../../db/database.ts";
import {
  findInstallation,
  type InstallationRow,
  insertInstallation,
  markInitialised,
} from "../../../db/queries/installation.ts";
import { listPublishedSigningKeys } from "../../../db/queries/keys.ts";
import { listAdministrators } from "../../../db/queries/users.ts";
import { audit } from "../audit/service.ts";
import { createRefreshKey, generateSigningKey, insertActiveSigningKey } from "../keys/service.ts";
import {
  ADMIN_ROLE,
  insertPreparedUser,
  prepareUser,
  setPassword,
  type UserDeps,
  type UserView,
} from "../users/service.ts";

/** What this database was set up as; undefined where it was not, or has no tables yet. */
export async function findInstalled(database: Database): Promise<InstallationRow | undefined> {
  const [row] = await database.query<{ found: string | null }>("SELECT to_regclass('installation')::text AS found");
  return row?.found ? findInstallation(database.orm) : undefined;
}

/**
 * Sees that the master key in hand is the one that this database was sealed with.
 *
 * @returns the installation's row; undefined on a database that `primer init` has not reached yet
 * @throws OperatorError (exit 2) where it is another one; nothing is changed
 */
export async function checkInstallation(tx: Tx, master: Keyring): Promise<InstallationRow | undefined> {
  const found = await findInstallation(tx);
  if (found && !master.some((key) => key.id === found.masterKeyId)) {
    throw misused(
      `This database belongs to master key ${found.masterKeyId}, but PRIMER_MASTER_KEY is ${master[0].id}.`,
      "Put back the secrets.env that belongs to this database (on several nodes they share one). Nothing was changed.",
    );
  }
  return found;
}

export interface Administrator {
  readonly username: string;
  readonly email: string;
  readonly password: string;
}

/** What happened: `administrator` is there where one was created or got a new password now. */
export interface Initialised {
  readonly keyCreated: boolean;
  readonly administrator: UserView | undefined;
}

const BY_OPERATOR = { actor: { kind: "operator" } } as const;

/**
 * Makes whatever an installation needs and does not have: keys, then the first administrator. Each step is one
 * transaction, so an interrupted run is finished by the next. A key that is there is never touched.
 *
 * Until {@link finishInitialising} was called, a run may have died between creating the administrator and showing a
 * made-up password; so the administrator then gets the password of this run.
 */
export async function initialise(deps: UserDeps, admin: () => Promise<Administrator>): Promise<Initialised> {
  const found = await checkInstallation(deps.db.orm, deps.secrets.master);
  const keyCreated = await ensureKeys(deps);
  if (found?.initialisedAt) return { keyCreated, administrator: undefined };
  const existing = (await listAdministrators(deps.db.orm))[0];
  const wanted = await admin();
  if (!existing) {
    const prepared = await prepareUser(deps, { ...wanted, roles: [ADMIN_ROLE] });
    const created = await deps.db.transaction((tx) => insertPreparedUser(tx, deps, prepared, BY_OPERATOR));
    return { keyCreated, administrator: created };
  }
  return { keyCreated, administrator: await setPassword(deps, existing.user.id, wanted.password, BY_OPERATOR) };
}

async function ensureKeys(deps: UserDeps): Promise<boolean> {
  if ((await listPublishedSigningKeys(deps.db.orm)).some((key) => key.state === "active")) return false;
  const { tokens, keys } = deps.settings;
  const key = await generateSigningKey(tokens.algorithm, keys.bits);
  await deps.db.transaction(async (tx) => {
    await insertInstallation(tx, { masterKeyId: deps.secrets.master[0].id, createdAt: deps.clock.now() });
    await insertActiveSigningKey(tx, deps, key);
    await createRefreshKey(tx, deps);
  });
  return true;
}

/** Records that the administrator's password has been shown: from now on init changes nothing. */
export async function finishInitialising(deps: UserDeps): Promise<void> {
  await deps.db.transaction(async (tx) => {
    await markInitialised(tx, deps.clock.now());
    await audit(tx, deps, { action: "installation.initialised", outcome: "success", ...BY_OPERATOR });
  });
}
