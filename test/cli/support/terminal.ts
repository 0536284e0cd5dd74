import { PRIMER, plainEnvironment } from "../../support/server.ts";
import { until } from "./serve.ts";

/** What a person's fingers send. */
export const KEYS = { enter: "\r", down: "\u001b[B", up: "\u001b[A", left: "\u001b[D", ctrlC: "\u0003" } as const;

/** A command at a pseudo-terminal, with somebody in front of it. */
export interface Session {
  /** Everything that was on the screen, without colours and cursor movements. */
  screen(): string;
  /** Waits until a text is on the screen that was not there when keys were last pressed. */
  sees(text: string): Promise<void>;
  press(...keys: readonly string[]): void;
  readonly exited: Promise<number>;
  close(): void;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what is taken away
const ESCAPES = /\u001b\[[0-9;?]*[A-Za-z]|\u001b[()][A-Z0-9]/g;

export function openTerminal(args: readonly string[], cwd: string): Session {
  let raw = "";
  let from = 0;
  const decoder = new TextDecoder();
  const child = Bun.spawn([...PRIMER, ...args], {
    cwd,
    env: plainEnvironment({ TERM: "xterm-256color" }),
    terminal: {
      cols: 120,
      rows: 50,
      data: (_terminal: unknown, chunk: Uint8Array) => {
        raw += decoder.decode(chunk, { stream: true });
      },
    },
  });
  const screen = () => raw.replace(ESCAPES, "");
  return {
    screen,
    async sees(text) {
      await until(
        `"${text}" on the screen, which shows:\n${screen().slice(-800)}\n`,
        () => screen().indexOf(text, from) >= 0,
      );
      from = screen().indexOf(text, from) + text.length;
    },
    press: (...keys) => {
      for (const key of keys) child.terminal?.write(key);
    },
    exited: child.exited,
    close: () => {
      child.kill("SIGKILL");
      child.terminal?.close();
    },
  };
}
