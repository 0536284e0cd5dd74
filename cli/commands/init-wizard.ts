import { existsSync } from "node:fs";
import { join } from "node:path";
import { cancel, confirm, group, intro, isCancel, log, outro, password, select, text } from "@clack/prompts";
import { failed } from "../../config/errors.ts";
import { findSetting, loadSettings, SETTINGS_FILE } from "../../config/load.ts";
import { ENVIRONMENTS } from "../../config/schema.ts";
import { weaknessesOf } from "../../server/features/passwords/service.ts";
import { parseEmail, parseUsername } from "../../server/features/users/names.ts";
import type { CommandContext, Options } from "../command.ts";

/** Standard output is for the result alone. */
const output = process.stderr;

/** Asks on the terminal for what the flags leave open. Answers the flags that they amount to. */
export async function askInit(context: CommandContext): Promise<Options> {
  const { options, home } = context;
  if (options.yes || options.adminPasswordStdin || options.adminPasswordFile) return options;
  intro("primer: set up a new installation", { output });
  if (existsSync(join(home, SETTINGS_FILE))) {
    log.info(`${home} has settings already; what was begun there is finished, and what is there stays.`, { output });
    if (!options.force) return { ...options, yes: true };
  }
  const answers = await group(
    {
      environment: () =>
        select({
          output,
          message: "What is it for?",
          options: ENVIRONMENTS.map((value) => ({ value, label: value, hint: HINTS[value] })),
          initialValue: "development" as (typeof ENVIRONMENTS)[number],
        }),
      publicUrl: ({ results }) =>
        results.environment === "development"
          ? Promise.resolve("")
          : text({
              output,
              message: "At what address do people reach it?",
              placeholder: "https://login.example.org",
              validate: setting("server.public_url", true),
            }),
      databaseUrl: () =>
        text({
          output,
          message: "PostgreSQL URL (empty: the embedded database)",
          placeholder: "postgres://user:password@host/db",
          validate: setting("database.url"),
        }),
      redisUrl: () =>
        text({
          output,
          message: "Redis URL (empty: none)",
          placeholder: "redis://host:6379",
          validate: setting("redis.url"),
        }),
      smtpUrl: () =>
        text({
          output,
          message: "Mail server URL (empty: none)",
          placeholder: "smtps://user:password@host",
          validate: setting("mail.smtp_url"),
        }),
      adminUsername: () =>
        text({
          output,
          message: "User name of the first administrator",
          initialValue: "admin",
          validate: (value) => (parseUsername(value ?? "") ? undefined : "2 to 64 of a-z, 0-9, . _ -"),
        }),
      adminEmail: () =>
        text({
          output,
          message: "Their e-mail address",
          placeholder: "you@example.org",
          validate: (value) => (parseEmail(value ?? "") ? undefined : "An e-mail address, please"),
        }),
      ownPassword: () =>
        confirm({ output, message: "Choose the password yourself? (else one is made and shown)", initialValue: false }),
      adminPassword: ({ results }) =>
        results.ownPassword
          ? askStrongPassword(context, {
              username: results.adminUsername ?? "",
              email: results.adminEmail ?? "",
              environment: results.environment,
              publicUrl: results.publicUrl,
            })
          : Promise.resolve(""),
    },
    { onCancel: () => stop() },
  );
  log.info(await capacity(context), { output });
  const go = await confirm({ output, message: `Set it up in ${home}?`, initialValue: true });
  if (isCancel(go) || !go) stop();
  outro("Setting up", { output });
  const { ownPassword: _, ...given } = answers;
  const filled = Object.entries(given).filter(([, value]) => typeof value === "string" && value !== "");
  return { ...options, ...(Object.fromEntries(filled) as Options), yes: true };
}

/** What to expect of this machine. Looked at for a moment while somebody has read the questions. */
async function capacity({ home, environment }: CommandContext): Promise<string> {
  const { quickHashRate } = await import("../bench/quick-look.ts");
  const perSecond = await quickHashRate(loadSettings(home, environment).settings.password);
  return `This machine can check about ${Math.round(perSecond)} passwords a second; \`primer bench\` measures logins.`;
}

interface Owner {
  readonly username: string;
  readonly email: string;
  readonly environment: unknown;
  readonly publicUrl: unknown;
}

/** Asks until the password is one that the policy lets pass, and says each time what is wrong with it. */
async function askStrongPassword(context: CommandContext, owner: Owner): Promise<string | symbol> {
  const { settings } = loadSettings(context.home, context.environment, {
    environment: owner.environment,
    ...(owner.publicUrl ? { "server.public_url": owner.publicUrl } : {}),
  });
  const length = `t least ${settings.password.min_length} characters`;
  const validate = (value: string | undefined) =>
    [...(value ?? "")].length < settings.password.min_length ? `A${length}` : undefined;
  for (;;) {
    const given = await password({ output, message: `Password (a${length})`, validate });
    if (isCancel(given)) return given;
    const reasons = await weaknessesOf(settings, given, owner);
    if (reasons.length === 0) return given;
    log.warn(reasons.map((reason) => reason.message).join("\n"), { output });
  }
}

const HINTS = {
  development: "this machine only, plain http, docs on",
  staging: "like production, docs on",
  production: "https only, docs off",
};

const setting =
  (key: string, required = false) =>
  (value: string | undefined) => {
    const kind = findSetting(key)?.kind;
    if (!value) return required ? `Expected ${kind?.expected}` : undefined;
    return kind?.parse(value) === undefined ? `Expected ${kind?.expected}` : undefined;
  };

function stop(): never {
  cancel("Cancelled", { output });
  throw failed("Cancelled; nothing was set up.");
}
