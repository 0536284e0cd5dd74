import type { Database } from "../../../db/database.ts";
import {
  findInstallation,
  type InstallationRow,
  insertInstallation,
  markInitialised,
} from "../../../db/queries/installation.ts";
import { listPublishedSigningKeys } from "../../../db/queries/keys.ts";
import { listAdministrators } from "../../../db/queries/users.ts";
import { audit } from "../audit/service.ts";
import { createSecretKey, generateSigningKey, keepSigningKey, openSecrets } from "../keys/service.ts";
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
  const { installation: found } = await openSecrets(deps.db.orm, deps.secrets);
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
    await keepSigningKey(tx, deps, key, { state: "active" }, BY_OPERATOR.actor);
    await createSecretKey(tx, deps, "refresh", { state: "active" }, BY_OPERATOR.actor);
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
