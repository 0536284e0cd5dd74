import { type LoadedSettings, loadSettings, type Variables } from "../../../config/load.ts";
import { readSecrets } from "../../../config/secrets.ts";
import type { Database } from "../../../db/database.ts";
import { openDatabase } from "../../../db/open.ts";
import { findUserWithPassword } from "../../../db/queries/users.ts";
import { createHashPool } from "../../../server/features/passwords/hash-pool.ts";
import { checkPassword } from "../../../server/features/passwords/service.ts";
import { systemClock } from "../../../server/ports/clock.ts";

/** What an installation must have exactly one of, and what a second run must not touch. */
export interface Standing {
  readonly activeSigningKeys: number;
  readonly activeRefreshKeys: number;
  readonly installations: number;
  readonly initialised: boolean;
  readonly administrators: readonly string[];
  readonly kids: readonly string[];
  readonly refreshKeyIds: readonly string[];
  readonly publicKey: { readonly n?: string };
  readonly sealedPrivateKey: string;
}

/** Opens the database of a home, as nobody else may while this runs. */
async function withDatabase<T>(
  home: string,
  environment: Variables,
  work: (database: Database, loaded: LoadedSettings) => Promise<T>,
): Promise<T> {
  const loaded = loadSettings(home, environment);
  const database = await openDatabase(loaded.settings, home, false);
  try {
    return await work(database, loaded);
  } finally {
    await database.close();
  }
}

async function readStanding(database: Database): Promise<Standing> {
  const keys = await database.query<{
    kid: string;
    state: string;
    public_jwk: { n?: string };
    sealed_private_key: string;
  }>("SELECT kid, state, public_jwk, sealed_private_key FROM signing_keys ORDER BY id");
  const refreshKeys = await database.query<{ key_id: string; state: string }>(
    "SELECT key_id, state FROM secret_keys WHERE purpose = 'refresh' ORDER BY id",
  );
  const installations = await database.query<{ initialised_at: Date | null }>(
    "SELECT initialised_at FROM installation",
  );
  const administrators = await database.query<{ username: string }>(
    "SELECT username FROM users JOIN user_roles ON user_id = users.id WHERE role = 'admin' ORDER BY username",
  );
  const active = keys.filter((key) => key.state === "active");
  return {
    activeSigningKeys: active.length,
    activeRefreshKeys: refreshKeys.filter((key) => key.state === "active").length,
    installations: installations.length,
    initialised: installations.every((row) => row.initialised_at !== null),
    administrators: administrators.map((row) => row.username),
    kids: keys.map((key) => key.kid),
    refreshKeyIds: refreshKeys.map((key) => key.key_id),
    publicKey: active[0]?.public_jwk ?? {},
    sealedPrivateKey: active[0]?.sealed_private_key ?? "",
  };
}

async function checkAgainst(database: Database, loaded: LoadedSettings, login: Login): Promise<boolean> {
  const account = await findUserWithPassword(database.orm, { kind: "username", key: login.username });
  const { settings, variables } = loaded;
  const deps = { settings, secrets: readSecrets(variables), hashPool: createHashPool(settings.password, systemClock) };
  return (await checkPassword(deps, login.password, account?.password ?? undefined)).correct;
}

export interface Login {
  readonly username: string;
  readonly password: string;
}

/** Reads how an installation stands from its database, and whether a password is right by the check that a login makes. */
export const standingOf = (home: string, login?: Login, environment: Variables = {}) =>
  withDatabase(home, environment, async (database, loaded) => ({
    ...(await readStanding(database)),
    passwordFits: login ? await checkAgainst(database, loaded, login) : undefined,
  }));

/** Whether a password is the one of this user. */
export const passwordFits = (home: string, username: string, password: string): Promise<boolean> =>
  withDatabase(home, {}, (database, loaded) => checkAgainst(database, loaded, { username, password }));
