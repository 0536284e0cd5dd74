/** Redis servers of a test's own, as single server, behind Sentinels, or as a cluster of one. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./services.ts";

const executable = Bun.which("redis-server");

export const whyNoRedis = (): string | undefined => (executable ? undefined : "redis-server is not on this machine");

export interface OwnRedis {
  readonly port: number;
  /** Stops it without ending it: it answers nothing and refuses nothing. */
  freeze(): void;
  thaw(): void;
  kill(): Promise<void>;
  start(): Promise<void>;
  /** Answers a command given as words. */
  command(...words: string[]): Promise<string>;
  remove(): Promise<void>;
}

export async function ownRedis(more: readonly string[] = [], port?: number): Promise<OwnRedis> {
  const folder = mkdtempSync(join(tmpdir(), "primer-redis-"));
  const own = port ?? (await freePort());
  const options = ["--port", String(own), "--bind", "127.0.0.1", "--dir", folder, "--save", "", ...more];
  let child: ReturnType<typeof Bun.spawn>;
  const command = async (...words: string[]) => {
    const ran = Bun.spawn(["redis-cli", "-p", String(own), ...words], { stdout: "pipe", stderr: "pipe" });
    return (await new Response(ran.stdout).text()).trim();
  };
  async function start(): Promise<void> {
    child = Bun.spawn([executable ?? "redis-server", ...options], { stdio: ["ignore", "ignore", "ignore"] });
    const deadline = performance.now() + 10_000;
    while ((await command("ping")) !== "PONG") {
      if (performance.now() > deadline) throw new Error("redis-server did not start");
      await Bun.sleep(50);
    }
  }
  async function kill(): Promise<void> {
    child.kill("SIGKILL");
    await child.exited;
  }
  await start();
  return {
    port: own,
    freeze: () => void process.kill(child.pid, "SIGSTOP"),
    thaw: () => void process.kill(child.pid, "SIGCONT"),
    kill,
    start,
    command,
    async remove() {
      await kill();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A Sentinel that watches a server under the name "mymaster", and asks for a password where one is given. */
export async function ownSentinel(
  watched: number,
  password?: string,
): Promise<{ port: number; remove(): Promise<void> }> {
  const folder = mkdtempSync(join(tmpdir(), "primer-sentinel-"));
  const port = await freePort();
  const file = join(folder, "sentinel.conf");
  const [asks, auth] = password ? [`requirepass ${password}\n`, ["-a", password, "--no-auth-warning"]] : ["", []];
  await Bun.write(file, `port ${port}\nbind 127.0.0.1\n${asks}sentinel monitor mymaster 127.0.0.1 ${watched} 1\n`);
  const child = Bun.spawn([executable ?? "redis-server", file, "--sentinel"], {
    stdio: ["ignore", "ignore", "ignore"],
  });
  const deadline = performance.now() + 10_000;
  for (;;) {
    const ran = Bun.spawn(["redis-cli", "-p", String(port), ...auth, "ping"], { stdout: "pipe", stderr: "ignore" });
    if ((await new Response(ran.stdout).text()).trim() === "PONG") break;
    if (performance.now() > deadline) throw new Error("The Sentinel did not start");
    await Bun.sleep(50);
  }
  return {
    port,
    async remove() {
      child.kill("SIGKILL");
      await child.exited;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
