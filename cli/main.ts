#!/usr/bin/env bun
import { resolve } from "node:path";
import { VERSION } from "../config/version.ts";

/** How long a reader may take for what is still in the pipe (milliseconds). */
const READ_WITHIN_MS = 30_000;

// A reader that has seen enough, such as head, is no error.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});

/** The version is asked for by scripts, often; nothing else is loaded for it. */
if (process.argv[2] === "--version" && process.argv.length === 3) {
  process.stdout.write(`${VERSION}\n`);
} else {
  process.exitCode = await main(process.argv.slice(2));
  await flushed();
  process.exit();
}

async function main(args: readonly string[]): Promise<number> {
  const [{ COMMANDS: commands, CHILD_COMMANDS }, { parseCommandLine }] = await Promise.all([
    import("./commands.ts"),
    import("./program.ts"),
  ]);
  const parsed = await parseCommandLine([...commands, ...CHILD_COMMANDS], args);
  if ("exitCode" in parsed) return parsed.exitCode;
  const { spec, invocation } = parsed;
  const [{ runCommand }, { terminalIo }] = await Promise.all([import("./run.ts"), import("./io.ts")]);
  const environment = { ...process.env };
  const home = resolve(String(invocation.options.dir ?? environment.PRIMER_HOME ?? "primer-data"));
  const color = invocation.options.color !== false && !environment.NO_COLOR;
  return runCommand(spec, invocation, { home, environment, commands, io: terminalIo({ color }) });
}

/** What was written to a pipe may still wait for its reader; only the end of the stream tells that it was read. */
async function flushed(): Promise<void> {
  const ended = [process.stdout, process.stderr].map(
    (stream) =>
      new Promise<void>((done) => {
        stream.once("error", () => done());
        stream.end(() => done());
      }),
  );
  await Promise.race([Promise.all(ended), Bun.sleep(READ_WITHIN_MS)]);
}
