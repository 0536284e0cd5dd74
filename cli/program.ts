import { Command, type CommanderError } from "commander";
import { EXIT } from "../config/errors.ts";
import { VERSION } from "../config/version.ts";
import { argumentForm, type CommandSpec, GLOBAL_OPTIONS, type Invocation } from "./command.ts";
import { errorDocument } from "./io.ts";

/** What the command line asks for: a command to run, or an exit code where there is nothing to run. */
export type Parsed = { readonly spec: CommandSpec; readonly invocation: Invocation } | { readonly exitCode: number };

const GROUP_SUMMARIES: Readonly<Record<string, string>> = {
  users: "Manage users",
  clients: "Manage the services that may introspect and revoke tokens",
  sessions: "See and end the sessions of users",
  jobs: "See background jobs, try them again, delete them",
  hibp: "Keep the list of breached passwords on this machine",
  config: "Check, show and explain settings",
};

const examplesOf = (examples: readonly string[]) =>
  `\nExample${examples.length === 1 ? "" : "s"}:\n${examples.map((example) => `  ${example}`).join("\n")}\n`;

/** Reads a command line against the table of commands. Help and usage errors are printed here; nothing else is done. */
export async function parseCommandLine(commands: readonly CommandSpec[], args: readonly string[]): Promise<Parsed> {
  let parsed: Parsed | undefined;
  const program = group(new Command("primer"), "Self-hosted authentication in one file.")
    .version(VERSION, "--version", "Print the version")
    .addHelpText("after", examplesOf(["primer init && primer serve", "primer users list", "primer doctor"]));
  for (const { flags, description } of GLOBAL_OPTIONS) program.option(flags, description);
  for (const spec of commands) {
    const [first = "", second] = spec.name.split(" ");
    const parent = second ? groupOf(program, commands, first) : program;
    const command = define(new Command(second ?? first), spec);
    command.action((...given) => {
      const options = command.optsWithGlobals();
      const words = (given.slice(0, -2) as (string | string[] | undefined)[])
        .flat()
        .filter((word) => word !== undefined);
      parsed = { spec, invocation: { arguments: words, options } };
    });
    parent.addCommand(command, { hidden: spec.hidden ?? false });
  }
  try {
    await program.parseAsync([...args], { from: "user" });
  } catch (error) {
    const { exitCode, message } = error as CommanderError;
    if (exitCode === 0) return { exitCode: EXIT.done };
    if (args.includes("--json"))
      process.stdout.write(errorDocument(EXIT.usage, message.replace(/^error: /, ""), USAGE_HINT));
    return { exitCode: EXIT.usage };
  }
  return parsed ?? { exitCode: EXIT.usage };
}

/** What to do about a command line that is not understood. */
const USAGE_HINT = "Add --help to see how it is used.";

function group(command: Command, description: string): Command {
  return command
    .description(description)
    .helpOption("--help", "Print help")
    .helpCommand(false)
    .showSuggestionAfterError()
    .showHelpAfterError(`  ${USAGE_HINT}`)
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "primer: ")) })
    .configureHelp({ showGlobalOptions: true })
    .exitOverride();
}

function groupOf(program: Command, commands: readonly CommandSpec[], name: string): Command {
  const found = program.commands.find((command) => command.name() === name);
  if (found) return found;
  const made = group(new Command(name), GROUP_SUMMARIES[name] ?? name);
  const examples = commands.filter((spec) => spec.name.startsWith(`${name} `)).flatMap((spec) => spec.examples);
  program.addCommand(made.addHelpText("after", examplesOf(examples)));
  return made;
}

function define(command: Command, spec: CommandSpec): Command {
  group(command, `${spec.summary}.`).summary(spec.summary);
  for (const argument of spec.arguments ?? []) command.argument(argumentForm(argument), argument.description);
  for (const { flags, description } of spec.options ?? []) command.option(flags, description);
  return command.addHelpText("after", examplesOf(spec.examples));
}
