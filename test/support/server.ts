import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NO_LIMITS } from "./no-limits.ts";
import { freePort } from "./services.ts";

const root = join(import.meta.dir, "../..");

/** How primer is started: the binary that the run has built, or from source where a test file is run by itself. */
export const PRIMER: readonly string[] = process.env.TEST_PRIMER
  ? [process.env.TEST_PRIMER]
  : [process.execPath, join(root, "cli/main.ts")];

/** The variables that a command gets: what a shell has, and nothing that this test run was given. */
export const plainEnvironment = (more: Record<string, string> = {}): Record<string, string> => ({
  PATH: process.env.PATH ?? "/usr/bin:/bin",
  ...more,
});

export interface Ran {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command of primer to its end, with nobody at the terminal. */
export async function runPrimer(
  args: readonly string[],
  options: { cwd?: string; input?: string; environment?: Record<string, string>; primer?: readonly string[] } = {},
): Promise<Ran> {
  const child = Bun.spawn([...(options.primer ?? PRIMER), ...args], {
    cwd: options.cwd ?? tmpdir(),
    env: plainEnvironment(options.environment),
    stdin: new Blob([options.input ?? ""]),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { exitCode: await child.exited, stdout, stderr };
}

export interface ServedHome {
  readonly home: string;
  readonly url: string;
  readonly password: string;
  readonly pid: number;
  /** Stops the server and removes the home. */
  remove(): Promise<void>;
}

/** An initialised installation in a folder of its own, served by a process of its own on a free port. */
export async function serveHome(environment: Record<string, string> = {}): Promise<ServedHome> {
  const folder = mkdtempSync(join(tmpdir(), "primer-served-"));
  const home = join(folder, "home");
  const port = await freePort();
  const variables = { PRIMER_HOME: home, PRIMER_SERVER__PORT: String(port), ...NO_LIMITS, ...environment };
  const init = await runPrimer(["init", "--yes", "--json"], { environment: variables });
  if (init.exitCode !== 0) throw new Error(`init ended with ${init.exitCode}: ${init.stderr}`);
  const child = Bun.spawn([...PRIMER, "serve"], {
    env: plainEnvironment(variables),
    stdio: ["ignore", "ignore", "ignore"],
  });
  const url = `http://127.0.0.1:${port}`;
  await untilReady(url);
  return {
    home,
    url,
    password: JSON.parse(init.stdout).admin.password,
    pid: child.pid,
    async remove() {
      child.kill("SIGTERM");
      await child.exited;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Waits until /readyz answers 200; throws after 20 seconds. With `ca` its certificate must be of that CA. */
export async function untilReady(url: string, ca?: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (performance.now() < deadline) {
    const answer = await fetch(`${url}/readyz`, ca === undefined ? {} : { tls: { ca } }).catch(() => undefined);
    if (answer?.status === 200) return;
    await Bun.sleep(20);
  }
  throw new Error(`${url} was not ready within 20 seconds`);
}
