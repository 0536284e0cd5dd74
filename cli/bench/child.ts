/**
 * Parts of a bench that run in a process of their own: this same program, started with a hidden command. Both sides speak
 * lines of JSON. A child ends when its standard input does, so also when whoever started it is killed.
 */
import { failed, OperatorError, textOf } from "../../config/errors.ts";
import { ownProgram } from "../../config/own-program.ts";

/** What a child does on request. `tell` sends something before the answer. */
export type Handlers = Readonly<
  Record<string, (input: never, tell: (event: unknown) => void) => unknown | Promise<unknown>>
>;

interface Question {
  readonly id: number;
  readonly verb: string;
  readonly input: unknown;
}

type Line =
  | { readonly id: number; readonly event: unknown }
  | { readonly id: number; readonly answer: unknown }
  | { readonly id: number; readonly error: { readonly exitCode: number; readonly message: string; hint?: string } };

/** Serves `handlers` on standard input and output until the input ends; then `end`, and the command is over. */
export async function serveHandlers(handlers: Handlers, end: () => Promise<void> = async () => {}): Promise<void> {
  const write = (line: Line) => void process.stdout.write(`${JSON.stringify(line)}\n`);
  async function handle({ id, verb, input }: Question): Promise<void> {
    try {
      const handler = handlers[verb] as (input: unknown, tell: (event: unknown) => void) => unknown;
      write({ id, answer: (await handler(input, (event) => write({ id, event }))) ?? null });
    } catch (error) {
      const known = error instanceof OperatorError ? error : failed(textOf(error));
      const { exitCode, message, hint } = known;
      write({ id, error: { exitCode, message, ...(hint === undefined ? {} : { hint }) } });
    }
  }
  for await (const line of linesOf(Bun.stdin.stream())) void handle(JSON.parse(line));
  await end();
}

export interface ChildProcess {
  readonly pid: number;
  /** @throws OperatorError as the child threw it, or exit 1 where the child is gone */
  ask<T>(verb: string, input?: unknown, hear?: (event: never) => void): Promise<T>;
  /** Ends its input, and waits until it has cleaned up and gone. */
  close(): Promise<void>;
}

/** Starts a part as a child in a session of its own, so that Ctrl-C reaches the bench alone. */
export function startChild(part: string, environment: Readonly<Record<string, string>>): ChildProcess {
  const child = Bun.spawn([...ownProgram(), "bench-child", part], {
    env: environment,
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
    detached: true,
  });
  const waiting = new Map<number, { hear(event: unknown): void; settle: PromiseWithResolvers<unknown> }>();
  let asked = 0;
  let isGone = false;
  const gone = () => failed(`A part of the bench (${part}) ended before it was done.`, "Run it again.");

  async function listen(): Promise<void> {
    for await (const text of linesOf(child.stdout)) {
      const line = JSON.parse(text) as Line;
      const { hear, settle } = waiting.get(line.id) ?? {};
      if ("event" in line) hear?.(line.event);
      else if ("answer" in line) settle?.resolve(line.answer);
      else settle?.reject(new OperatorError(line.error.exitCode as 1, line.error.message, line.error.hint));
      if (!("event" in line)) waiting.delete(line.id);
    }
    isGone = true;
    for (const { settle } of waiting.values()) settle.reject(gone());
  }
  const listening = listen();

  return {
    pid: child.pid,
    async ask<T>(verb: string, input: unknown = null, hear: (event: never) => void = () => {}) {
      if (isGone) throw gone();
      const id = asked++;
      const settle = Promise.withResolvers<unknown>();
      waiting.set(id, { hear: hear as (event: unknown) => void, settle });
      child.stdin.write(`${JSON.stringify({ id, verb, input } satisfies Question)}\n`);
      await child.stdin.flush();
      return (await settle.promise) as T;
    },
    async close() {
      await child.stdin.end();
      await Promise.all([child.exited, listening]);
    },
  };
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}
