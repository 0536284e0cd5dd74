import { failed, misused } from "../../config/errors.ts";
import { parseDuration } from "../../config/kinds.ts";
import {
  type ClientDeps,
  type ClientView,
  type ClientWithSecret,
  createClient,
  DEFAULT_OVERLAP_MS,
  deleteClient,
  findClientByAny,
  listClientPage,
  MAX_OVERLAP_MS,
  rotateClientSecret,
} from "../../server/features/clients/service.ts";
import type { CommandContext, Implementation, Outcome } from "../command.ts";
import { limitFrom, table } from "../io.ts";
import { withUserDeps } from "../workspace.ts";

const BY_OPERATOR = { actor: { kind: "operator" } } as const;

const rowsOf = (clients: readonly ClientView[]) =>
  table(
    ["NAME", "CREATED", "SECRETS", "OLD SECRET UNTIL", "CLIENT ID"],
    clients.map(({ name, created_at, secrets, id }) => [
      name,
      created_at,
      String(secrets.length),
      secrets.find(({ expires_at }) => expires_at !== null)?.expires_at ?? "",
      id,
    ]),
  );

const withSecret = (client: ClientWithSecret, sentence: string): Outcome => ({
  json: client,
  text: `${sentence}\n${rowsOf([client])}Secret, shown this once: ${client.client_secret}\n`,
});

async function clientMeant(deps: ClientDeps, text: string): Promise<ClientView> {
  const found = await findClientByAny(deps, text);
  if (!found) throw failed("There is no such client.", "`primer clients list` shows them.");
  return found;
}

/** A command on the one client named by its first argument. */
const onClient = (
  work: (deps: ClientDeps, client: ClientView, context: CommandContext) => Promise<Outcome>,
): Implementation => ({
  run: (context) =>
    withUserDeps(context, async (deps) => work(deps, await clientMeant(deps, context.arguments[0] ?? ""), context)),
});

export const create: Implementation = {
  run: (context) =>
    withUserDeps(context, async (deps) =>
      withSecret(await createClient(deps, { name: context.arguments[0] ?? "" }, BY_OPERATOR), "Registered."),
    ),
};

export const list: Implementation = {
  run: (context) =>
    withUserDeps(context, async (deps) => {
      const { limit, after } = context.options;
      const page = await listClientPage(deps, {
        limit: limitFrom(limit),
        ...(typeof after === "string" ? { cursor: (await clientMeant(deps, after)).id } : {}),
      });
      const more = page.next_cursor ? `More: --after ${page.next_cursor}\n` : "";
      return { json: page, text: rowsOf(page.data) + more };
    }),
};

function overlapFrom(value: unknown): number {
  if (value === undefined) return DEFAULT_OVERLAP_MS;
  const overlap = parseDuration(String(value));
  if (overlap !== undefined && overlap <= MAX_OVERLAP_MS) return overlap;
  throw misused(`--overlap: expected a duration from 0s to 30d such as 24h, not ${value}.`);
}

export const rotateSecret = onClient(async (deps, { id }, { options }) => {
  const overlap = overlapFrom(options.overlap);
  const sentence = overlap > 0 ? "The old secret goes on working for a time." : "The old secret is dead.";
  return withSecret(await rotateClientSecret(deps, id, overlap, BY_OPERATOR), sentence);
});

export const remove = onClient(async (deps, client) => {
  await deleteClient(deps, client.id, BY_OPERATOR);
  return { json: client, text: `Deleted; its secrets are dead.\n${rowsOf([client])}` };
});
