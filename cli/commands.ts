import { misused } from "../config/errors.ts";
import type { CommandSpec } from "./command.ts";

const user = { name: "user", description: "User name, e-mail address or id" };
const passwordStdin = { flags: "--password-stdin", description: "Read the password from standard input" };

/** Every command of primer. What does the work is loaded only when its command runs. */
export const COMMANDS: readonly CommandSpec[] = [
  {
    name: "init",
    summary: "Set up a new installation, or finish one that was begun",
    options: [
      { flags: "--yes", description: "Ask nothing; take the defaults for what no flag says" },
      { flags: "--environment <name>", description: "development (default), staging or production" },
      { flags: "--public-url <url>", description: "The address that people reach primer at" },
      { flags: "--database-url <url>", description: "PostgreSQL 15 or later; without it the embedded database" },
      { flags: "--redis-url <url>", description: "Redis, for limits and caches shared by several processes" },
      { flags: "--smtp-url <url>", description: "Mail server; without it mails are kept and read on the machine" },
      { flags: "--otlp-endpoint <url>", description: "OpenTelemetry endpoint that metrics are sent to" },
      { flags: "--admin-username <name>", description: "First administrator (default admin)" },
      { flags: "--admin-email <address>", description: "Their e-mail address" },
      {
        flags: "--admin-password-stdin",
        description: "Read their password from standard input; without it one is made and shown",
      },
      { flags: "--algorithm <name>", description: "Signature algorithm: RS256 (default), PS256, ES256 or EdDSA" },
      { flags: "--key-bits <n>", description: "Size of the RSA key (default 4096, at least 3072)" },
      { flags: "--force", description: "Replace the settings of a finished installation; keys always stay" },
    ],
    examples: [
      "primer init",
      "primer init --yes",
      "primer init --yes --environment production --public-url https://login.example.org --database-url postgres://primer@db/primer --admin-email ada@example.org",
    ],
    runsInHolder: true,
    load: () => import("./commands/init.ts"),
  },
  {
    name: "serve",
    summary: "Serve the HTTP API",
    options: [
      { flags: "--host <address>", description: "Address to listen on (default 127.0.0.1)" },
      { flags: "--port <n>", description: "TCP port (default 8080)" },
    ],
    examples: ["primer serve", "primer serve --host 0.0.0.0 --port 9000"],
    runsInHolder: false,
    load: () => import("./commands/serve.ts"),
  },
  {
    name: "migrate",
    summary: "Bring the database's schema up to date",
    options: [{ flags: "--status", description: "Tell how it stands and change nothing" }],
    examples: ["primer migrate", "primer migrate --status"],
    runsInHolder: true,
    load: () => import("./commands/migrate.ts"),
  },
  {
    name: "doctor",
    summary: "Look at everything primer stands on, and say how to mend what is wrong (exit 4)",
    examples: ["primer doctor", "primer doctor --json"],
    runsInHolder: true,
    load: () => import("./commands/doctor.ts"),
  },
  {
    name: "users create",
    summary: "Create a user",
    arguments: [{ name: "username", description: "2 to 64 of a-z, 0-9, dot, underscore and hyphen" }],
    options: [
      { flags: "--email <address>", description: "Their e-mail address" },
      { flags: "--role <name...>", description: "Roles (default user)" },
      passwordStdin,
    ],
    examples: ["primer users create ada --email ada@example.org --password-stdin < password.txt"],
    runsInHolder: true,
    load: async () => (await import("./commands/users.ts")).create,
  },
  {
    name: "users list",
    summary: "List users, the newest first",
    options: [
      { flags: "--query <text>", description: "Only those whose user name or address has this in it" },
      { flags: "--limit <n>", description: "How many (default 50, at most 200)" },
      { flags: "--after <user>", description: "Go on after this user" },
    ],
    examples: ["primer users list", "primer users list --query example.org --json"],
    runsInHolder: true,
    load: async () => (await import("./commands/users.ts")).list,
  },
  {
    name: "users show",
    summary: "Show one user",
    arguments: [user],
    examples: ["primer users show ada"],
    runsInHolder: true,
    load: async () => (await import("./commands/users.ts")).show,
  },
  {
    name: "users disable",
    summary: "Disable a user and end every session of theirs",
    arguments: [user],
    examples: ["primer users disable ada"],
    runsInHolder: true,
    load: async () => (await import("./commands/users.ts")).disable,
  },
  {
    name: "users enable",
    summary: "Let a disabled user log in again",
    arguments: [user],
    examples: ["primer users enable ada"],
    runsInHolder: true,
    load: async () => (await import("./commands/users.ts")).enable,
  },
  {
    name: "users set-password",
    summary: "Set a user's password and end every session of theirs",
    arguments: [user],
    options: [passwordStdin],
    examples: ["primer users set-password ada", "primer users set-password ada --password-stdin < password.txt"],
    runsInHolder: true,
    load: async () => (await import("./commands/users.ts")).setPasswordCommand,
  },
  {
    name: "users set-roles",
    summary: "Give a user exactly these roles",
    arguments: [user, { name: "roles...", description: "Names of roles" }],
    examples: ["primer users set-roles ada user admin"],
    runsInHolder: true,
    load: async () => (await import("./commands/users.ts")).setRolesCommand,
  },
  {
    name: "config check",
    summary: "Check the settings and secrets; every fault is named",
    examples: ["primer config check"],
    runsInHolder: false,
    load: async () => (await import("./commands/config.ts")).check,
  },
  {
    name: "config show",
    summary: "Show every setting and where it came from; secrets are never printed",
    examples: ["primer config show", "primer config show --json"],
    runsInHolder: false,
    load: async () => (await import("./commands/config.ts")).show,
  },
  {
    name: "config explain",
    summary: "Explain one setting",
    arguments: [{ name: "key", description: "Such as tokens.access_ttl" }],
    examples: ["primer config explain tokens.access_ttl"],
    runsInHolder: false,
    load: async () => (await import("./commands/config.ts")).explain,
  },
  {
    name: "openapi",
    summary: "Print the OpenAPI document",
    examples: ["primer openapi > openapi.json"],
    runsInHolder: false,
    load: () => import("./commands/openapi.ts"),
  },
  {
    name: "completions",
    summary: "Print the completion script of a shell",
    arguments: [{ name: "shell", description: "bash, zsh or fish", values: ["bash", "zsh", "fish"] }],
    examples: ["primer completions bash > /etc/bash_completion.d/primer"],
    runsInHolder: false,
    load: () => import("./commands/completions.ts"),
  },
];

/** The command of this name. @throws OperatorError (exit 2) where there is none */
export function findCommand(name: string): CommandSpec {
  const found = COMMANDS.find((command) => command.name === name);
  if (!found) throw misused(`There is no command ${name}.`);
  return found;
}
