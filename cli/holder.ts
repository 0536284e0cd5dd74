import { chmodSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { codeOf, failed, OperatorError, textOf, unreachable } from "../config/errors.ts";
import { withSocketPath } from "../config/socket-path.ts";
import { VERSION } from "../config/version.ts";
import { lockHolder } from "../db/lock.ts";
import type { Invocation } from "./command.ts";
import type { Io } from "./io.ts";

/**
 * The process that owns the embedded database runs other commands for us: arguments and standard input go in through a
 * Unix socket in the home, standard output, standard error and the exit code come out. Only the owner of the home can
 * open the socket.
 */
const SOCKET_FILE = "primer.sock";
/** How long a caller waits for the first sign that its command was taken on: longer than a busy holder may stall. */
const SIGN_OF_LIFE_MS = 90_000;

interface Request extends Invocation {
  readonly version: string;
  readonly command: string;
  readonly input: string;
  readonly color: boolean;
  readonly columns: number;
}

/** A command may be silent for longer than a server usually waits. The runtime's types leave this out for sockets. */
const NEVER_IDLE = { idleTimeout: 0, development: false } as { development: false };

type Frame = { readonly out: string } | { readonly note: string } | { readonly exit: number };

/** Runs one command for another process. @returns the exit code */
export type HeldRunner = (command: string, invocation: Invocation, io: Io) => Promise<number>;

export interface CommandSocket {
  close(): void;
}

/** Listens for commands in the home. The caller owns the home's lock, so a socket that lies there is a dead one's. */
export async function listenForCommands(home: string, run: HeldRunner): Promise<CommandSocket> {
  const path = join(home, SOCKET_FILE);
  mkdirSync(home, { recursive: true, mode: 0o700 });
  rmSync(path, { force: true });
  const umask = process.umask(0o177);
  const fetch = async (request: globalThis.Request) => answer((await request.json()) as Request, run);
  const server = await withSocketPath(home, SOCKET_FILE, (unix) => Bun.serve({ ...NEVER_IDLE, unix, fetch })).finally(
    () => process.umask(umask),
  );
  chmodSync(path, 0o600);
  return {
    close() {
      server.stop(true);
      rmSync(path, { force: true });
    },
  };
}

function answer(request: Request, run: HeldRunner): Response {
  const encoder = new TextEncoder();
  const stream = new ReadableStream<Uint8Array>({
    async start(controller) {
      const send = (frame: Frame) => {
        try {
          controller.enqueue(encoder.encode(`${JSON.stringify(frame)}\n`));
        } catch {
          // Whoever asked has gone; the command still runs to its end.
        }
      };
      const exit = await runFor(request, run, send);
      send({ exit });
      try {
        controller.close();
      } catch {
        // gone as well
      }
    },
  });
  return new Response(stream);
}

async function runFor(request: Request, run: HeldRunner, send: (frame: Frame) => void): Promise<number> {
  if (request.version !== VERSION) {
    send({ note: `primer ${VERSION} is running, this is ${request.version}. Restart the running one first.\n` });
    return 1;
  }
  const io: Io = {
    out: (out) => send({ out }),
    note: (note) => send({ note }),
    input: async () => request.input,
    interactive: false,
    color: request.color,
    columns: request.columns,
  };
  send({ note: "" }); // the caller waits no longer than for a sign of life
  return run(request.command, { arguments: request.arguments, options: request.options }, io);
}

/** Whether a process listens for commands in this home, as far as the folder tells. */
export const hasSocket = (home: string): boolean => existsSync(join(home, SOCKET_FILE));

/**
 * Has the holder run a command, and passes on what it writes.
 *
 * @returns the command's exit code; undefined where nobody listens at the socket, since its process was killed
 * @throws OperatorError where the holder goes away before it has answered, or gives no sign of life (exit 3)
 */
export async function runInHolder(
  home: string,
  command: string,
  invocation: Invocation,
  io: Io,
): Promise<number | undefined> {
  const needsInput = Object.keys(invocation.options).some((name) => name.endsWith("Stdin"));
  const body: Request = {
    version: VERSION,
    command,
    ...invocation,
    input: needsInput ? await io.input() : "",
    color: io.color,
    columns: io.columns,
  };
  const silence = new AbortController();
  const timer = setTimeout(() => silence.abort(), SIGN_OF_LIFE_MS);
  try {
    const response = await withSocketPath(home, SOCKET_FILE, (unix) =>
      fetch("http://primer/", { unix, method: "POST", body: JSON.stringify(body), signal: silence.signal }),
    );
    clearTimeout(timer);
    return await relay(response, io);
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    if (silence.signal.aborted) {
      throw unreachable(
        `The running primer (process ${lockHolder(home) ?? "unknown"}) gave no sign of life for ${SIGN_OF_LIFE_MS / 1000} s.`,
        "Look at that process: it may be stopped, or its machine overloaded.",
      );
    }
    if (["ECONNREFUSED", "ENOENT", "ConnectionRefused", "FailedToOpenSocket"].includes(codeOf(error) ?? ""))
      return undefined;
    throw failed(`The running primer did not answer at ${join(home, SOCKET_FILE)}: ${textOf(error)}`, undefined, error);
  } finally {
    clearTimeout(timer);
  }
}

async function relay(response: Response, io: Io): Promise<number> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of response.body ?? []) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const frame = JSON.parse(line) as Frame;
      if ("out" in frame) io.out(frame.out);
      else if ("note" in frame) io.note(frame.note);
      else return frame.exit;
    }
  }
  throw failed("The running primer stopped before the command was done.", "See its log, then run the command again.");
}
