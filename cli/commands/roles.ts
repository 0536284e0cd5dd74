import { readFileSync } from "node:fs";
import { misused, textOf } from "../../config/errors.ts";
import {
  applyRoles,
  getRole,
  listRolePage,
  type RoleChange,
  type RoleContent,
  type RoleView,
  rightsOfRole,
} from "../../server/features/roles/service.ts";
import type { Implementation } from "../command.ts";
import { table } from "../io.ts";
import { withUserDeps } from "../workspace.ts";

const BY_OPERATOR = { actor: { kind: "operator" } } as const;
/** More roles than there can be. */
const ALL = 1000;

const rowsOf = (roles: readonly RoleView[]) =>
  table(
    ["ROLE", "PERMISSIONS", "INCLUDES", "DESCRIPTION"],
    roles.map(({ name, permissions, includes, description }) => [
      name,
      permissions.join(" "),
      includes.join(" "),
      description,
    ]),
  );

export const list: Implementation = {
  run: (context) =>
    withUserDeps(context, async (deps) => {
      const { data } = await listRolePage(deps, { limit: ALL });
      return { json: { data, next_cursor: null }, text: rowsOf(data) };
    }),
};

export const show: Implementation = {
  run: (context) =>
    withUserDeps(context, async (deps) => {
      const name = context.arguments[0] ?? "";
      const role = await getRole(deps, name);
      const effective = await rightsOfRole(deps, name);
      const all = effective.length === 0 ? "nothing" : effective.join(" ");
      return { json: { ...role, effective }, text: `${rowsOf([role])}Gives, with what it includes: ${all}\n` };
    }),
};

const SHOWN = { create: "+", update: "~", none: "=" } as const;

const lineOf = ({ role, change, added, removed }: RoleChange) =>
  [
    `${SHOWN[change]} ${role}`,
    ...added.map((entry) => `    + ${entry}`),
    ...removed.map((entry) => `    - ${entry}`),
  ].join("\n");

export const apply: Implementation = {
  run: (context) =>
    withUserDeps(context, async (deps) => {
      const dryRun = context.options.dryRun === true;
      const changes = await applyRoles(deps, rolesIn(context.arguments[0] ?? ""), BY_OPERATOR, dryRun);
      const count = changes.filter(({ change }) => change !== "none").length;
      const summary = dryRun ? `${count} roles would change; nothing was done.` : `${count} roles changed.`;
      return {
        json: { applied: !dryRun, changes },
        text: `${changes.map(lineOf).join("\n")}\n${summary}\n`,
      };
    }),
};

const EXPECTED =
  'Expected roles by name, such as\n  roles:\n    support:\n      description: Looks after users\n      permissions: [users:read, "sessions:*"]\n      includes: [user]';

/** @throws OperatorError (exit 2) naming what in the file is not as it should be */
function rolesIn(path: string): Map<string, RoleContent> {
  const { roles } = record(parsed(path), path, ["roles"]);
  return new Map(
    Object.entries(record(roles, `${path}: roles`)).map(([name, content]) => [name, roleIn(name, content)]),
  );
}

function parsed(path: string): unknown {
  try {
    return Bun.YAML.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw misused(`${path} cannot be read: ${textOf(error)}`, EXPECTED);
  }
}

function roleIn(name: string, content: unknown): RoleContent {
  const {
    description = "",
    permissions = [],
    includes = [],
  } = record(content ?? {}, `The role ${name}`, ["description", "permissions", "includes"]);
  if (typeof description !== "string") throw misused(`The role ${name}: its description is no text.`, EXPECTED);
  return { description, permissions: texts(name, permissions), includes: texts(name, includes) };
}

function record(value: unknown, what: string, known?: readonly string[]): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw misused(`${what}: this is no table of names.`, EXPECTED);
  }
  const unknown = known && Object.keys(value).find((key) => !known.includes(key));
  if (unknown !== undefined) throw misused(`${what}: there is no ${unknown} to be set.`, EXPECTED);
  return value as Record<string, unknown>;
}

function texts(name: string, value: unknown): string[] {
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
  throw misused(`The role ${name}: permissions and includes are lists of texts.`, EXPECTED);
}
