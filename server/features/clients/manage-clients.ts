import type { Tx } from "../../../db/database.ts";
import { violatedUniqueness } from "../../../db/errors.ts";
import {
  type ClientWithSecrets,
  deleteClient as deleteClientRow,
  expireClientSecrets,
  findClient,
  insertClient,
  insertClientSecret,
  listClients,
  lockClient,
} from "../../../db/queries/clients.ts";
import type { Deps } from "../../deps.ts";
import { AppError, invalidField } from "../../errors.ts";
import { type Page, type PageAsked, pageOf, rowsAsked } from "../../page.ts";
import { isId } from "../../ports/random.ts";
import { type AuditAction, audit } from "../audit/service.ts";
import { eachTime, type Once } from "../idempotency/service.ts";
import { hashSecret } from "../tokens/service.ts";
import type { Actor } from "../users/service.ts";

/** What services need of the process to work with clients; no server has to run. */
export type ClientDeps = Pick<Deps, "db" | "clock" | "random">;

/** How long the old secret goes on working beside a new one (milliseconds), and how long at most. */
export const DEFAULT_OVERLAP_MS = 24 * 3_600_000;
export const MAX_OVERLAP_MS = 30 * DEFAULT_OVERLAP_MS;

/** So that scanners of source code and logs know a secret of ours when they see one. */
const SECRET_PREFIX = "prs_";

/** A client as the API and the command line show it: never with a secret. */
export interface ClientView {
  /** Also the `client_id` that it authenticates with. */
  readonly id: string;
  readonly name: string;
  readonly created_at: string;
  /** Those that count now, the newest first: two while one is replaced. */
  readonly secrets: readonly { readonly created_at: string; readonly expires_at: string | null }[];
}

/** A client with its new secret: the only time that it is shown. */
export interface ClientWithSecret extends ClientView {
  readonly client_secret: string;
}

const viewOf = ({ client, secrets }: ClientWithSecrets, now: Date): ClientView => ({
  id: client.id,
  name: client.name,
  created_at: client.createdAt.toISOString(),
  secrets: secrets
    .filter(({ expiresAt }) => expiresAt === null || now < expiresAt)
    .map(({ createdAt, expiresAt }) => ({
      created_at: createdAt.toISOString(),
      expires_at: expiresAt?.toISOString() ?? null,
    })),
});

const NAME = /^[\p{L}\p{N}][\p{L}\p{N}\p{M} ._-]{0,63}$/u;
const NAME_RULE = "1 to 64 letters, digits, spaces, dots, underscores and hyphens, starting with a letter or digit";

/** A name as it is kept. Never in the form of an id: a client can be named by either. @throws AppError VALIDATION_FAILED */
function parseName(text: string): string {
  const name = text.trim().normalize("NFC");
  if (NAME.test(name) && !isId(name.toLowerCase())) return name;
  throw invalidField("name", NAME_RULE);
}

/**
 * Registers a service client. Its secret has 256 bits and is kept as a hash.
 *
 * @throws AppError VALIDATION_FAILED, or CONFLICT with `details.field` where the name is taken
 */
export async function createClient(
  deps: ClientDeps,
  input: { name: string },
  by: Actor,
  once: Once = eachTime,
): Promise<ClientWithSecret> {
  const name = parseName(input.name);
  const createdAt = deps.clock.now();
  const id = deps.random.id(createdAt);
  return deps.db.change((tx) =>
    once(tx, async () => {
      await insertClient(tx, { id, name, createdAt }).catch((error) => {
        if (violatedUniqueness(error) === "clients_name_key")
          throw new AppError("CONFLICT", { details: { field: "name" } });
        throw error;
      });
      const secret = await addSecret(tx, deps, id);
      await record(tx, deps, "client.created", id, by, { name });
      return { ...viewOf(await requireClient(tx, id), createdAt), client_secret: secret };
    }),
  );
}

async function addSecret(tx: Tx, deps: ClientDeps, clientId: string): Promise<string> {
  const secret = `${SECRET_PREFIX}${deps.random.token()}`;
  const createdAt = deps.clock.now();
  await insertClientSecret(tx, {
    id: deps.random.id(createdAt),
    clientId,
    secretHash: hashSecret(secret),
    createdAt,
  });
  return secret;
}

async function requireClient(tx: Tx, id: string): Promise<ClientWithSecrets> {
  const found = isId(id) ? await findClient(tx, { id }) : undefined;
  if (!found) throw new AppError("NOT_FOUND");
  return found;
}

/** Newest first. The cursor is the id of the last one of the page before. @throws AppError VALIDATION_FAILED */
export async function listClientPage(deps: ClientDeps, page: PageAsked): Promise<Page<ClientView>> {
  const rows = await listClients(deps.db.replica, rowsAsked(page));
  const now = deps.clock.now();
  const views = rows.map((row) => viewOf(row, now));
  return pageOf(views, page.limit, ({ id }) => id);
}

/** The client that somebody names by its id or its name. */
export async function findClientByAny(deps: ClientDeps, text: string): Promise<ClientView | undefined> {
  const name = text.trim().normalize("NFC");
  const id = name.toLowerCase();
  const found = await findClient(deps.db.orm, isId(id) ? { id } : { name });
  return found && viewOf(found, deps.clock.now());
}

/**
 * Gives a client a new secret. The one in use works on for `overlapMs`, 0 ends it now; an older one ends in any case, so
 * never more than two count.
 *
 * @throws AppError NOT_FOUND
 */
export async function rotateClientSecret(
  deps: ClientDeps,
  id: string,
  overlapMs: number,
  by: Actor,
): Promise<ClientWithSecret> {
  return deps.db.change(async (tx) => {
    if (isId(id)) await lockClient(tx, id);
    await requireClient(tx, id);
    const now = deps.clock.now();
    await expireClientSecrets(tx, id, new Date(now.getTime() + overlapMs));
    const secret = await addSecret(tx, deps, id);
    await record(tx, deps, "client.secret_rotated", id, by, { overlap_seconds: overlapMs / 1000 });
    return { ...viewOf(await requireClient(tx, id), now), client_secret: secret };
  });
}

/** Deletes a client; its secrets are dead at once. @throws AppError NOT_FOUND */
export async function deleteClient(deps: ClientDeps, id: string, by: Actor): Promise<void> {
  await deps.db.change(async (tx) => {
    const deleted = isId(id) ? await deleteClientRow(tx, id) : undefined;
    if (!deleted) throw new AppError("NOT_FOUND");
    await record(tx, deps, "client.deleted", id, by, { name: deleted.name });
  });
}

const record = (tx: Tx, deps: ClientDeps, action: AuditAction, id: string, by: Actor, details: object) =>
  audit(tx, deps, { action, outcome: "success", subject: { kind: "client", id }, details: { ...details }, ...by });
