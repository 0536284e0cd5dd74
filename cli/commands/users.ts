import { password as askPassword, isCancel } from "@clack/prompts";
import { failed, misused } from "../../config/errors.ts";
import {
  changeUser,
  createUser,
  findUserByAny,
  listUserPage,
  requirePasswordChange,
  setPassword,
  setRoles,
  type UserDeps,
  type UserView,
  unlockUser,
} from "../../server/features/users/service.ts";
import type { CommandContext, Implementation, Options, Outcome } from "../command.ts";
import { limitFrom, table } from "../io.ts";
import { withUserDeps } from "../workspace.ts";

const BY_OPERATOR = { actor: { kind: "operator" } } as const;

const rowsOf = (users: readonly UserView[]) =>
  table(
    ["USERNAME", "E-MAIL", "STATUS", "ROLES", "LAST LOGIN", "ID"],
    users.map((user) => [
      user.username,
      user.email,
      user.status,
      user.roles.join(","),
      user.last_login_at ?? "never",
      user.id,
    ]),
  );

const outcomeOf = (user: UserView, sentence: string): Outcome => ({
  json: user,
  text: `${sentence === "" ? "" : `${sentence}\n`}${rowsOf([user])}`,
});

/** A command that changes the one user named by its first argument. */
const onUser = (
  sentence: string,
  change: (deps: UserDeps, user: UserView, context: CommandContext) => Promise<UserView>,
): Implementation => ({
  run: (context) =>
    withUserDeps(context, async (deps) => {
      const user = await findUserByAny(deps, context.arguments[0] ?? "");
      return outcomeOf(await change(deps, user, context), sentence);
    }),
});

async function passwordFrom(context: CommandContext): Promise<string> {
  if (context.options.passwordStdin) return (await context.io.input()).replace(/\r?\n$/, "");
  if (typeof context.options.password === "string") return context.options.password;
  throw misused("There is no password.", "Give it on standard input: add --password-stdin.");
}

/** Asks for the password on the terminal, where it was not promised on standard input. */
async function ask(context: CommandContext): Promise<Options> {
  if (context.options.passwordStdin) return context.options;
  const answer = await askPassword({ message: "Password", output: process.stderr });
  if (isCancel(answer)) throw failed("Cancelled; nothing was changed.");
  return { ...context.options, password: answer };
}

export const create: Implementation = {
  ask,
  run: async (context) => {
    const { email, role } = context.options;
    if (typeof email !== "string") throw misused("There is no e-mail address.", "Give it: --email ada@example.org");
    const input = {
      username: context.arguments[0] ?? "",
      email,
      password: await passwordFrom(context),
      roles: Array.isArray(role) ? role : ["user"],
    };
    return withUserDeps(context, async (deps) => outcomeOf(await createUser(deps, input, BY_OPERATOR), "Created."));
  },
};

export const list: Implementation = {
  run: (context) =>
    withUserDeps(context, async (deps) => {
      const { limit, query, after } = context.options;
      const asked = {
        limit: limitFrom(limit),
        ...(typeof after === "string" ? { cursor: (await findUserByAny(deps, after)).id } : {}),
      };
      const page = await listUserPage(deps, asked, typeof query === "string" ? query : undefined);
      const more = page.next_cursor ? `More: --after ${page.next_cursor}\n` : "";
      return { json: page, text: rowsOf(page.data) + more };
    }),
};

export const show = onUser("", async (_deps, user) => user);

export const disable = onUser("Disabled; every session has ended.", (deps, user) =>
  changeUser(deps, user.id, { status: "disabled" }, BY_OPERATOR),
);

export const enable = onUser("Enabled.", (deps, user) => changeUser(deps, user.id, { status: "active" }, BY_OPERATOR));

export const unlock = onUser("Unlocked; the failed logins are forgotten.", (deps, user) =>
  unlockUser(deps, user.id, BY_OPERATOR),
);

export const setPasswordCommand: Implementation = {
  ask,
  ...onUser("The password is set; every session has ended.", async (deps, user, context) =>
    setPassword(deps, user.id, await passwordFrom(context), BY_OPERATOR),
  ),
};

export const compromise = onUser(
  "Every session has ended; the next login asks for a new password.",
  async (deps, user) => {
    await requirePasswordChange(deps, user.id, BY_OPERATOR);
    return user;
  },
);

export const setRolesCommand = onUser("The roles are set.", (deps, user, context) =>
  setRoles(deps, user.id, { roles: context.arguments.slice(1) }, BY_OPERATOR),
);
