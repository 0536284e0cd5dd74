import { availableParallelism } from "node:os";
import { failed, misused, textOf } from "../config/errors.ts";
import type { LoadedSettings } from "../config/load.ts";
import type { Log } from "../config/log.ts";
import { ownProgram } from "../config/own-program.ts";
import { assertFree } from "../server/http/listener.ts";
import type { CommandContext, Options, Outcome } from "./command.ts";
import { untilStopped } from "./long-running.ts";

const MOST_WORKERS = 64;
/** How long nobody replaces a process that has ended: twice as long each time, up to the longest (milliseconds). */
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 10_000;
/** A process that has served for so long was in order; what ends it is no reason to wait longer the next time. */
const IN_ORDER_AFTER_MS = 60_000;
/** A process that is told to stop ends by itself within what the settings say; so much later it is ended (milliseconds). */
const STOP_MARGIN_MS = 10_000;

/** Which of the processes that share a port this one is, from 1 on, and how many there are. */
export interface Share {
  readonly index: number;
  readonly of: number;
}

/**
 * What --workers asks for: how many processes, or in the form "2/4" which one of them this is; by that a parent starts its
 * children.
 *
 * @param otherDatabase how to have one that several processes can get at
 * @throws OperatorError exit 2
 */
export function workersAsked(
  { workers }: Options,
  embedded: boolean,
  otherDatabase = "set DATABASE_URL to a PostgreSQL",
): number | Share {
  const text = workers === undefined ? "1" : String(workers);
  const [, index, of] = /^(\d+)\/(\d+)$/.exec(text) ?? [];
  const count = text === "auto" ? Math.min(availableParallelism(), MOST_WORKERS) : Number(of ?? text);
  if (!Number.isInteger(count) || count < 1 || count > MOST_WORKERS)
    throw misused(`--workers: expected auto or a whole number from 1 to ${MOST_WORKERS}, not ${text}.`);
  if (count > 1 && embedded) {
    // "auto" is what there is: on the embedded database that is one.
    if (text === "auto") return 1;
    throw misused(
      "--workers over 1 does not go with the embedded database: one process has it.",
      `Leave the flag out, or ${otherDatabase}.`,
    );
  }
  return index === undefined ? count : { index: Number(index), of: count };
}

/** What to tell of a port that cannot be listened on. */
export const cannotListen = ({ host, port }: LoadedSettings["settings"]["server"], error: unknown) =>
  failed(
    `${host}:${port} cannot be listened on: ${textOf(error)}`,
    "Something else may have the port; choose another one with --port.",
    error,
  );

/** What a process that shares a machine with others takes of it, where the settings leave that open. */
export const shareOfCores = ({ of }: Share): number => Math.max(1, Math.floor(availableParallelism() / of));

/** For a process that a parent has started: says that it serves. Resolves when the parent is gone, and it has to end too. */
export function reportToParent(): Promise<void> {
  process.send?.("serving");
  return new Promise((resolve) => process.once("disconnect", resolve));
}

/**
 * Serves with several processes that share the port, and serves nothing itself. One that ends is replaced; where none ever
 * got so far as to serve, all is ended with its exit code.
 *
 * @param withWorker whether the first of them does the background work
 */
export async function serveTogether(
  context: CommandContext,
  { settings }: LoadedSettings,
  { count, withWorker, log }: { readonly count: number; readonly withWorker: boolean; readonly log: Log },
): Promise<Outcome> {
  const { host, port, drain_delay, stop_timeout } = settings.server;
  try {
    assertFree({ host, port });
  } catch (error) {
    throw cannotListen(settings.server, error);
  }
  const stopped = untilStopped(log);
  const ended = Promise.withResolvers<number>();
  const children = new Map<number, Bun.Subprocess>();
  const pauses = new Map<number, Timer>();
  let isStopping = false;
  let everServed = false;
  /** Those that listen for SIGHUP, which would end the others; they are told as soon as they do. */
  const serving = new Set<number>();
  let reloads = 0;

  function start(index: number, failures: number): void {
    pauses.delete(index);
    const began = performance.now();
    const asOf = reloads;
    const child = Bun.spawn(commandOf(context, { index, of: count }, withWorker && index === 1), {
      env: context.environment as Record<string, string>,
      stdio: ["ignore", context.options.json ? "ignore" : "inherit", "inherit"],
      ipc() {
        everServed = true;
        serving.add(index);
        if (asOf !== reloads) child.kill("SIGHUP");
      },
      onExit(_, exitCode, signal) {
        children.delete(index);
        serving.delete(index);
        if (isStopping) return;
        if (!everServed) return ended.resolve(exitCode ?? 1);
        const failed = performance.now() - began > IN_ORDER_AFTER_MS ? 0 : failures;
        const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failed);
        log.error("A process has ended; another one takes its place", {
          event: "serve.process_ended",
          exit_code: exitCode,
          signal,
          pause_ms: pause,
        });
        pauses.set(
          index,
          setTimeout(() => start(index, failed + 1), pause),
        );
      },
    });
    children.set(index, child);
  }

  const tellAll = (signal: NodeJS.Signals) => {
    for (const child of children.values()) child.kill(signal);
  };
  process.on("SIGHUP", () => {
    reloads++;
    for (const index of serving) children.get(index)?.kill("SIGHUP");
  });
  for (let index = 1; index <= count; index++) start(index, 0);
  log.info("Serving with several processes", { event: "serve.together", processes: count, pid: process.pid });
  const exitCode = await Promise.race([stopped.then(() => 0), ended.promise]);
  isStopping = true;
  for (const pause of pauses.values()) clearTimeout(pause);
  tellAll("SIGTERM");
  const late = setTimeout(() => tellAll("SIGKILL"), drain_delay + stop_timeout + STOP_MARGIN_MS);
  await Promise.all([...children.values()].map((child) => child.exited));
  clearTimeout(late);
  log.info("Stopped", { event: "process.stopped" });
  return { json: { stopped: true }, text: "", exitCode };
}

/** This program again, from source or compiled, as one of several. */
function commandOf({ home, options }: CommandContext, { index, of }: Share, withWorker: boolean): string[] {
  const given = (["host", "port"] as const).flatMap((name) =>
    options[name] === undefined ? [] : [`--${name}`, String(options[name])],
  );
  return [
    ...ownProgram(),
    "serve",
    ...["--dir", home, "--workers", `${index}/${of}`, withWorker ? "--with-worker" : "--no-worker"],
    ...given,
    ...(options.json ? ["--json"] : []),
    ...(options.color === false ? ["--no-color"] : []),
  ];
}
