import { join } from "node:path";
import type { Variables } from "../../config/load.ts";
import { insertImportedUsers } from "../../db/queries/moving.ts";
import { createClient } from "../../server/features/clients/service.ts";
import { hashPassword } from "../../server/features/passwords/service.ts";
import type { UserDeps } from "../../server/features/users/service.ts";
import type { Io } from "../io.ts";
import { ownWorkspace, withUserDeps } from "../workspace.ts";
import { seededName } from "./requests.ts";

export interface Seed {
  readonly folder: string;
  readonly users: number;
  readonly password: string;
}

export interface Seeded {
  readonly client: { readonly id: string; readonly secret: string };
}

const ROWS_AT_A_TIME = 500;
const BY_OPERATOR = { actor: { kind: "operator" } } as const;

/**
 * Fills a scratch home with users who all have one password, and a service client. They share one hash: to check it is as
 * much work as to check one of their own, and a million of those would take hours to make.
 */
export function seed(place: { environment: Variables; io: Io }, wanted: Seed): Promise<Seeded> {
  const home = join(wanted.folder, "home");
  return withUserDeps({ ...place, home, workspace: ownWorkspace(home) }, async (deps) => {
    const stored = await hashPassword(deps, wanted.password);
    for (let from = 0; from < wanted.users; from += ROWS_AT_A_TIME) {
      const numbers = Array.from({ length: Math.min(ROWS_AT_A_TIME, wanted.users - from) }, (_, index) => from + index);
      const now = deps.clock.now();
      const rows = numbers.map((number) => rowOf(deps, number, stored, now));
      await deps.db.transaction((tx) => insertImportedUsers(tx, rows, now));
    }
    const { id, client_secret } = await createClient(deps, { name: "bench" }, BY_OPERATOR);
    return { client: { id, secret: client_secret } };
  });
}

type Stored = Awaited<ReturnType<typeof hashPassword>>;

function rowOf(deps: UserDeps, number: number, stored: Stored, now: Date) {
  const username = seededName(number);
  const email = `${username}@bench.invalid`;
  return {
    id: deps.random.id(now),
    username,
    email,
    emailKey: email,
    emailVerifiedAt: now,
    status: "active" as const,
    passwordChangeRequired: false,
    createdAt: now,
    updatedAt: now,
    lastLoginAt: null,
    deactivatedAt: null,
    credential: { id: deps.random.id(now), ...stored, changedAt: now },
    roles: ["user"],
    grants: [],
  };
}
