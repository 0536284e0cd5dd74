/** Real VictoriaMetrics and vmalert of a test's own: from Debian's package `victoria-metrics` of sid, which .ci/tools unpacks. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./services.ts";

const [server, alerter] = [Bun.which("victoria-metrics"), Bun.which("vmalert")];

export const whyNoVictoria = (): string | undefined =>
  server && alerter ? undefined : "victoria-metrics and vmalert are not on the PATH; .ci/tools fetches them";

export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Victoria {
  readonly url: string;
  /** What a query comes to at a time (now, where none is given). Throws where it is not understood. */
  query(expression: string, at?: Date): Promise<Sample[]>;
  /** Writes series with times of their own, as JSON lines of /api/v1/import. */
  write(series: readonly object[]): Promise<void>;
  stop(): Promise<void>;
}

/** @param scrape targets that it asks for /metrics, in Prometheus' form (`scrape_configs`) */
export async function startVictoria(scrape?: readonly object[]): Promise<Victoria> {
  const folder = mkdtempSync(join(tmpdir(), "primer-victoria-"));
  const port = await freePort();
  const config = join(folder, "scrape.json"); // JSON is YAML
  if (scrape) await Bun.write(config, JSON.stringify({ scrape_configs: scrape }));
  const child = Bun.spawn(
    [
      server ?? "victoria-metrics",
      `-httpListenAddr=127.0.0.1:${port}`,
      `-storageDataPath=${join(folder, "data")}`,
      "-search.latencyOffset=0s",
      "-search.disableCache",
      "-inmemoryDataFlushInterval=1s",
      "-memory.allowedBytes=256MB",
      "-loggerLevel=ERROR",
      ...(scrape ? [`-promscrape.config=${config}`] : []),
    ],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  const url = `http://127.0.0.1:${port}`;
  const deadline = performance.now() + 20_000;
  while (!(await fetch(`${url}/health`).catch(() => undefined))?.ok) {
    if (performance.now() > deadline) throw new Error("VictoriaMetrics did not start");
    await Bun.sleep(50);
  }
  return {
    url,
    async query(expression, at) {
      const time = at ? { time: String(at.getTime() / 1000) } : {};
      const answer = await fetch(`${url}/api/v1/query`, {
        method: "POST",
        body: new URLSearchParams({ query: expression, nocache: "1", ...time }),
        signal: AbortSignal.timeout(10_000),
      });
      if (!answer.ok) throw new Error(`${expression}: ${await answer.text()}`);
      const { data } = (await answer.json()) as Answer;
      return data.result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
    },
    async write(series) {
      const body = series.map((one) => JSON.stringify(one)).join("\n");
      const answer = await fetch(`${url}/api/v1/import`, { method: "POST", body });
      if (!answer.ok) throw new Error(await answer.text());
      await flush(url);
    },
    async stop() {
      child.kill("SIGTERM");
      await child.exited;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

interface Answer {
  readonly data: {
    readonly result: readonly { metric: Record<string, string>; value: readonly [number, string] }[];
  };
}

/** Makes what was written visible to queries at once. */
export const flush = (url: string) => fetch(`${url}/internal/force_flush`);

/** Runs vmalert to its end. @returns its exit code and what it said */
export async function runVmalert(...options: readonly string[]): Promise<{ exitCode: number; said: string }> {
  const child = Bun.spawn([alerter ?? "vmalert", "-loggerLevel=WARN", `-httpListenAddr=127.0.0.1:0`, ...options], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const said = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { exitCode: await child.exited, said: said.join("") };
}

/** What vmalert says of an alert that fires, or will if it lasts. */
export interface Pending {
  readonly name: string;
  readonly state: "pending" | "firing";
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface Vmalert {
  alerts(): Promise<readonly Pending[]>;
  stop(): Promise<void>;
}

/** A vmalert that looks every second. */
export async function startVmalert(rules: string, datasource: string): Promise<Vmalert> {
  const port = await freePort();
  const child = Bun.spawn(
    [
      alerter ?? "vmalert",
      `-rule=${rules}`,
      `-datasource.url=${datasource}`,
      `-httpListenAddr=127.0.0.1:${port}`,
      "-evaluationInterval=1s",
      "-rule.evalDelay=0s",
      "-notifier.blackhole",
      "-loggerLevel=ERROR",
    ],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  return {
    async alerts() {
      const answer = await fetch(`http://127.0.0.1:${port}/api/v1/alerts`).catch(() => undefined);
      const { data } = answer?.ok
        ? ((await answer.json()) as { data: { alerts: Pending[] } })
        : { data: { alerts: [] } };
      return data.alerts;
    },
    async stop() {
      child.kill("SIGTERM");
      await child.exited;
    },
  };
}
