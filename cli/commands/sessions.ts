import { failed, misused } from "../../config/errors.ts";
import {
  endEverySession,
  endSession,
  endSessionsOf,
  listSessionPage,
  type SessionView,
} from "../../server/features/sessions/service.ts";
import { findUserByAny, type UserDeps } from "../../server/features/users/service.ts";
import type { CommandContext, Implementation } from "../command.ts";
import { limitFrom, table } from "../io.ts";
import { withUserDeps } from "../workspace.ts";

const BY_OPERATOR = { actor: { kind: "operator" } } as const;

const rowsOf = (sessions: readonly SessionView[]) =>
  table(
    ["DEVICE", "NAME", "ADDRESS", "CREATED", "LAST SEEN", "EXPIRES", "ID"],
    sessions.map((session) => [
      session.device,
      session.device_name ?? "-",
      session.ip ?? "-",
      session.created_at,
      session.last_seen_at,
      session.expires_at,
      session.id,
    ]),
  );

export const list: Implementation = {
  run: (context) =>
    withUserDeps(context, async (deps) => {
      const { limit, after } = context.options;
      const user = await findUserByAny(deps, context.arguments[0] ?? "");
      const page = await listSessionPage(deps, user.id, {
        limit: limitFrom(limit),
        ...(typeof after === "string" ? { cursor: after } : {}),
      });
      const more = page.next_cursor ? `More: --after ${page.next_cursor}\n` : "";
      return { json: page, text: rowsOf(page.data) + more };
    }),
};

export const revoke: Implementation = {
  run: async (context) => {
    const work = workFor(context);
    const sessions_ended = await withUserDeps(context, work);
    return { json: { sessions_ended }, text: `Ended: ${sessions_ended}. Their tokens are refused from now on.\n` };
  },
};

/** What to end, of the three ways to say it. @throws OperatorError exit 2 where it is not said in exactly one */
function workFor({ arguments: [session], options }: CommandContext): (deps: UserDeps) => Promise<number> {
  const { user, all, yes } = options;
  const ways = [session !== undefined, user !== undefined, all === true].filter(Boolean);
  if (ways.length !== 1) {
    throw misused("Say which sessions, in one way.", "Give the id of a session, or --user USER, or --all --yes.");
  }
  if (session !== undefined) return (deps) => endOne(deps, session);
  if (typeof user === "string") {
    return async (deps) => endSessionsOf(deps, (await findUserByAny(deps, user)).id, BY_OPERATOR);
  }
  if (yes !== true) throw misused("--all logs everybody out, you included.", "Add --yes if that is what you want.");
  return (deps) => endEverySession(deps, BY_OPERATOR);
}

async function endOne(deps: UserDeps, id: string): Promise<number> {
  await endSession(deps, id.toLowerCase(), BY_OPERATOR).catch((error: { errorCode?: string }) => {
    if (error.errorCode !== "NOT_FOUND") throw error;
    throw failed("There is no such session, or it has ended already.", "`primer sessions list USER` shows them.");
  });
  return 1;
}
