import type { Variables } from "../config/load.ts";
import type { Io } from "./io.ts";
import type { WorkspaceSource } from "./workspace.ts";

/** What was given on the command line, by the option's name in camel case. */
export type Options = Readonly<Record<string, string | boolean | string[] | undefined>>;

export interface Invocation {
  readonly arguments: readonly string[];
  readonly options: Options;
}

/** What a command ends with: `json` for --json, `text` for people, and an exit code where it is not 0. */
export interface Outcome {
  readonly json: unknown;
  readonly text: string;
  readonly exitCode?: number;
}

/** The surroundings of a command. In another process that runs it on our behalf they are ours all the same. */
export interface CommandContext extends Invocation {
  readonly io: Io;
  /** The home as an absolute path. */
  readonly home: string;
  readonly environment: Variables;
  /** Every command there is. */
  readonly commands: readonly CommandSpec[];
  readonly workspace: WorkspaceSource;
}

/** The part of a command that is loaded only when it runs. */
export interface Implementation {
  /** Asks the person for what is missing; only where one is there to be asked. Answers the options to go on with. */
  ask?(context: CommandContext): Promise<Options>;
  run(context: CommandContext): Promise<Outcome>;
}

export interface OptionSpec {
  /** As commander writes it: "--key-bits <n>". */
  readonly flags: string;
  readonly description: string;
  /** Whether its value is a file, as for arguments. */
  readonly isPath?: boolean;
}

/** A command as data: help, completions, the README's table and the parser all read this. */
export interface CommandSpec {
  /** One or two words: "users create". */
  readonly name: string;
  readonly summary: string;
  readonly arguments?: readonly {
    readonly name: string;
    readonly description: string;
    readonly values?: readonly string[];
    /** Whether the command does with none. */
    readonly optional?: boolean;
    /** Whether it is a file or folder: the process that runs the command may stand in another folder. */
    readonly isPath?: boolean;
  }[];
  readonly options?: readonly OptionSpec[];
  readonly examples: readonly string[];
  /** Whether a process that owns the embedded database may run it for us; for some only with certain options. */
  readonly runsInHolder: boolean | ((options: Options) => boolean);
  /** Not in help: what a command starts for itself in another process. */
  readonly hidden?: boolean;
  load(): Promise<Implementation>;
}

/** An argument as help writes it. */
export const argumentForm = ({ name, optional }: { readonly name: string; readonly optional?: boolean }): string =>
  optional ? `[${name}]` : `<${name}>`;

/** The options that every command has. */
export const GLOBAL_OPTIONS: readonly OptionSpec[] = [
  { flags: "--dir <dir>", description: "The home (default $PRIMER_HOME, else ./primer-data)" },
  { flags: "--json", description: "One JSON document on standard output, everything else on standard error" },
  { flags: "--no-color", description: "No colours" },
];
