import { resolve } from "node:path";
import { codeOf, EXIT, misused, OperatorError, textOf } from "../config/errors.ts";
import type { Variables } from "../config/load.ts";
import { redactText } from "../config/log.ts";
import { isConnectionError } from "../db/errors.ts";
import type { CommandContext, CommandSpec, Invocation } from "./command.ts";
import { INTERNAL_COMMANDS } from "./commands.ts";
import { hasSocket, runInHolder } from "./holder.ts";
import { dim, errorDocument, type Io, red } from "./io.ts";
import { ownWorkspace, type WorkspaceSource } from "./workspace.ts";

/** How long a command waits for another one that has the embedded database for a moment (milliseconds). */
const MAX_WAIT_MS = 10_000;
/** `serve` waits only as long as a command that is about to end may take. */
const MAX_WAIT_TO_OWN_MS = 1000;
const WAIT_STEP_MS = 100;

interface Surroundings {
  readonly home: string;
  readonly environment: Variables;
  readonly commands: readonly CommandSpec[];
  readonly io: Io;
}

/**
 * Runs a command to its exit code: asks for what is missing, runs it here or in the process that owns the database, and
 * prints its outcome or what went wrong. The one place where an error of a command ends.
 */
export async function runCommand(spec: CommandSpec, given: Invocation, where: Surroundings): Promise<number> {
  const json = Boolean(given.options.json);
  const invocation = withAbsolutePaths(spec, given);
  try {
    const implementation = await spec.load();
    const context = contextOf(invocation, where, ownWorkspace(where.home));
    const options = where.io.interactive && implementation.ask ? await implementation.ask(context) : invocation.options;
    const asked = { ...context, options };
    return await hereOrInHolder(spec, asked, () => execute(spec, asked));
  } catch (error) {
    return explain(error, where.io, json);
  }
}

/** Runs a command, by its name, in the process that owns the database, for another one. */
export async function runHeldCommand(
  name: string,
  invocation: Invocation,
  where: Surroundings,
  workspace: WorkspaceSource,
): Promise<number> {
  try {
    const spec = [...where.commands, ...INTERNAL_COMMANDS].find((command) => command.name === name);
    if (!spec || !runsInHolder(spec, invocation)) throw misused(`The running primer has no command ${name}.`);
    return await execute(spec, contextOf(invocation, where, workspace));
  } catch (error) {
    return explain(error, where.io, Boolean(invocation.options.json));
  }
}

/** Files are named from the folder that the person stands in, wherever the command then runs. */
function withAbsolutePaths(spec: CommandSpec, { arguments: words, options }: Invocation): Invocation {
  const paths = (spec.options ?? [])
    .filter((option) => option.isPath)
    .map(({ flags }) => /--([\w-]+)/.exec(flags)?.[1]?.replace(/-(\w)/g, (_, letter) => letter.toUpperCase()) ?? "")
    .flatMap((name) => (typeof options[name] === "string" ? [[name, resolve(options[name])]] : []));
  return {
    arguments: words.map((word, index) => (spec.arguments?.[index]?.isPath ? resolve(word) : word)),
    options: { ...options, ...Object.fromEntries(paths) },
  };
}

const contextOf = (invocation: Invocation, where: Surroundings, workspace: WorkspaceSource): CommandContext => ({
  home: where.home,
  environment: where.environment,
  commands: where.commands,
  io: where.io,
  arguments: invocation.arguments,
  options: invocation.options,
  workspace,
});

async function execute(spec: CommandSpec, context: CommandContext): Promise<number> {
  const implementation = await spec.load();
  const outcome = await implementation.run(context);
  context.io.out(context.options.json ? `${JSON.stringify(outcome.json, null, 2)}\n` : outcome.text);
  return outcome.exitCode ?? EXIT.done;
}

const runsInHolder = ({ runsInHolder: rule }: CommandSpec, { options }: Invocation): boolean =>
  typeof rule === "function" ? rule(options) : rule;

async function hereOrInHolder(spec: CommandSpec, context: CommandContext, run: () => Promise<number>): Promise<number> {
  const mayGoToHolder = runsInHolder(spec, context);
  const deadline = performance.now() + (mayGoToHolder ? MAX_WAIT_MS : MAX_WAIT_TO_OWN_MS);
  for (;;) {
    try {
      return await run();
    } catch (error) {
      if (!isHeld(error)) throw error;
      if (mayGoToHolder && hasSocket(context.home)) {
        const invocation = { arguments: context.arguments, options: context.options };
        const exitCode = await runInHolder(context.home, spec.name, invocation, context.io);
        if (exitCode !== undefined) return exitCode;
      }
      if (performance.now() > deadline) throw error;
      await Bun.sleep(WAIT_STEP_MS);
    }
  }
}

const isHeld = (error: unknown) => error instanceof OperatorError && error.reason === "held";

interface Explained {
  readonly code: number;
  readonly message: string;
  readonly hint: string | undefined;
}

function explain(error: unknown, io: Io, json: boolean): number {
  const { code, message, hint } = explained(error);
  if (json) io.out(errorDocument(code, message, hint));
  io.note(`${red(io, "primer:")} ${message}\n${hint ? `${dim(io, `  ${hint}`)}\n` : ""}`);
  return code;
}

/** Codes of a connection's end that are as often a missing file, and those of a full disk or memory. */
const OWN_FAULTS = /^(ENOENT|53...)$/;

function explained(error: unknown): Explained {
  if (error instanceof OperatorError) return { code: error.exitCode, message: error.message, hint: error.hint };
  const service = serviceError(error);
  if (service) return service;
  const root = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const message = redactText(textOf(root));
  if (isConnectionError(error) && !OWN_FAULTS.test(codeOf(root) ?? "")) {
    const hint = "See that it is up, reachable and not busy with something else; then run the command again.";
    return { code: EXIT.unreachable, message: `The database cannot serve now: ${message}`, hint };
  }
  const hint = "If it happens again, report it with the command that you ran and this message.";
  return { code: EXIT.failed, message, hint };
}

/** What a service refuses, in the words of the command line. */
function serviceError(error: unknown): Explained | undefined {
  const { errorCode, details } = error as {
    errorCode?: string;
    details?: {
      fields?: { path: string; message: string }[];
      reasons?: { message: string }[];
      field?: string;
      reason?: string;
    };
  };
  switch (errorCode) {
    case "VALIDATION_FAILED":
      return usage(details?.fields?.map(({ path, message }) => `${path}: ${message}`).join("; ") ?? "wrong input");
    case "PASSWORD_TOO_WEAK":
      return usage(`The password is too weak: ${details?.reasons?.map(({ message }) => message).join("; ")}`);
    case "CONFLICT":
      if (details?.reason === "email_not_verified")
        return {
          code: EXIT.failed,
          message: "This account was registered and never confirmed.",
          hint: "It becomes active by the link that was mailed, and is erased by itself a day after its registration.",
        };
      return details?.reason === "last_administrator"
        ? {
            code: EXIT.failed,
            message: "This is the last active administrator.",
            hint: "Give somebody else the role admin first.",
          }
        : { code: EXIT.failed, message: `This ${details?.field} is taken.`, hint: "Choose another one." };
    case "NOT_FOUND":
      return { code: EXIT.failed, message: "There is no such user.", hint: "`primer users list` shows them." };
    default:
      return undefined;
  }
}

const usage = (message: string): Explained => ({ code: EXIT.usage, message, hint: undefined });
