import type { Handlers } from "./child.ts";
import type { CleanedUp, Load, LoadEvent } from "./load.ts";
import { createLoadGenerator, type LoadGenerator } from "./load-generator.ts";
import type { Destination } from "./requests.ts";

/** What the generator is opened with: with `takesBack` the server is somebody's, and gets its sessions ended at the end. */
export interface Opening {
  readonly to: Destination;
  readonly takesBack: boolean;
}

/** A load generator for whoever starts this process. Also where that one is killed it takes back what it has made. */
export function loadHandlers(): { handlers: Handlers; end(): Promise<void> } {
  let generator: LoadGenerator | undefined;
  let mustTakeBack = false;
  let underWay: Promise<unknown> = Promise.resolve();
  const opened = (): LoadGenerator => {
    if (!generator) throw new Error("Nobody has said where the load goes");
    return generator;
  };
  function begin<T>(work: Promise<T>): Promise<T> {
    underWay = work.catch(() => {});
    return work;
  }
  async function cleanUp(): Promise<CleanedUp> {
    mustTakeBack = false;
    opened().stop();
    await underWay;
    return opened().cleanUp({ accounts: true });
  }
  return {
    handlers: {
      open({ to, takesBack }: Opening) {
        generator = createLoadGenerator(to);
        mustTakeBack = takesBack;
      },
      logIn: ({ connections }: { connections: number }) => begin(opened().logIn(connections)),
      run: (load: Load, tell: (event: LoadEvent) => void) => begin(opened().run(load, tell)),
      cleanUp,
    },
    async end() {
      generator?.stop();
      if (mustTakeBack) await cleanUp();
      generator?.close();
    },
  };
}
