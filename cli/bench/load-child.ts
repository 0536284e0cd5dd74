import type { Handlers } from "./child.ts";
import type { Load, LoadEvent } from "./load.ts";
import { createLoadGenerator, type LoadGenerator } from "./load-generator.ts";
import type { Destination } from "./requests.ts";

/** A load generator for whoever starts this process. */
export function loadHandlers(): { handlers: Handlers; end(): Promise<void> } {
  let generator: LoadGenerator | undefined;
  const opened = (): LoadGenerator => {
    if (!generator) throw new Error("Nobody has said where the load goes");
    return generator;
  };
  return {
    handlers: {
      open(to: Destination) {
        generator = createLoadGenerator(to);
      },
      logIn: ({ connections }: { connections: number }) => opened().logIn(connections),
      run: (load: Load, tell: (event: LoadEvent) => void) => opened().run(load, tell),
      cleanUp: (options: { accounts: boolean }) => opened().cleanUp(options),
      stop: () => opened().stop(),
    },
    async end() {
      generator?.stop();
      generator?.close();
    },
  };
}
