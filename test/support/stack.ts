/**
 * The production stack of compose/ by hand, on loopback: its proxy, PostgreSQL with a streaming replica, Redis, two API
 * nodes and two workers, each from the very files that the containers would get, with addresses of this machine.
 */
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { $, type Subprocess } from "bun";
import { waitFor } from "../drills/processes.ts";
import { type SmtpHost, startSmtp } from "../worker/support/smtp.ts";
import { NO_LIMITS } from "./no-limits.ts";
import { PRIMER, plainEnvironment, untilReady } from "./server.ts";
import { asServerUser, freePort, postgresBinaries } from "./services.ts";

const compose = join(import.meta.dir, "../../compose");
const NGINX = Bun.which("nginx", { PATH: `${process.env.PATH}:/usr/sbin` });
const REDIS = Bun.which("redis-server");
const VICTORIA = Bun.which("victoria-metrics");
const VMALERT = Bun.which("vmalert");
const ALERTS = join(compose, "../grafana/alerts/vmalert.yml");

/** Why the stack cannot be had on this machine, where it cannot. */
export function whyNoStack(): string | undefined {
  const missing = [
    NGINX ? [] : ["nginx"],
    REDIS ? [] : ["redis-server"],
    postgresBinaries() ? [] : ["PostgreSQL's binaries"],
    Bun.which("openssl") ? [] : ["openssl"],
  ].flat();
  return missing.length > 0 ? `not on this machine: ${missing.join(", ")}` : undefined;
}

interface Service {
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

/** A process of the stack, with what it has written so far. */
export interface Running {
  readonly pid: number;
  output(): string;
  signal(name: NodeJS.Signals): void;
  end(name?: NodeJS.Signals): Promise<void>;
}

export interface Node extends Running {
  readonly url: string;
}

/** A request as the proxy logs it; `node` has every node that was asked. */
interface Passed {
  readonly path: string;
  readonly status: number;
  readonly node: string;
}

export interface Stack {
  /** Where people reach it: the proxy. */
  readonly url: string;
  readonly plainUrl: string;
  readonly certificate: string;
  readonly password: string;
  readonly nodes: [Node, Node];
  readonly smtp: SmtpHost;
  /** What the proxy has logged of its requests so far. */
  passed(): Passed[];
  /** What is not in it on this machine, and why. */
  readonly leftOut: readonly string[];
  /** Where VictoriaMetrics answers; undefined where it is left out. */
  readonly metricsUrl: string | undefined;
  /** Where vmalert answers; undefined where it is left out. */
  readonly alertsUrl: string | undefined;
  startNode(index: 0 | 1): Promise<void>;
  /** Runs a command of primer with the environment of the container that migrates. */
  primer(words: readonly string[], input?: string): Promise<{ exitCode: number; stdout: string; stderr: string }>;
  /** What a statement answers on the primary. */
  query(statement: string): Promise<string>;
  remove(): Promise<void>;
}

function run(command: readonly string[], environment: Record<string, string>): Running {
  const child: Subprocess<"ignore", "pipe", "pipe"> = Bun.spawn([...command], {
    env: plainEnvironment(environment),
    stdio: ["ignore", "pipe", "pipe"],
  });
  let text = "";
  const collect = async (stream: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) text += decoder.decode(chunk, { stream: true });
  };
  const collected = Promise.all([collect(child.stdout), collect(child.stderr)]);
  return {
    pid: child.pid,
    output: () => text,
    signal: (name) => void process.kill(child.pid, name),
    async end(name = "SIGTERM") {
      child.kill(name);
      await child.exited;
      await collected;
    },
  };
}

/** Everything is stopped in the reverse order of its start, also where a start failed half-way. */
export async function startStack(): Promise<Stack> {
  const ends: (() => unknown)[] = [];
  const remove = async () => {
    for (const end of ends.splice(0).reverse()) await end();
  };
  try {
    return { ...(await assemble(ends)), remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function assemble(ends: (() => unknown)[]): Promise<Omit<Stack, "remove">> {
  const folder = mkdtempSync(join(tmpdir(), "primer-stack-"));
  ends.push(() => rmSync(folder, { recursive: true, force: true }));
  chmodSync(folder, 0o755); // PostgreSQL, as a user of its own, reads its password there
  cpSync(join(compose, "make-secrets.sh"), join(folder, "make-secrets.sh"));
  await $`${folder}/make-secrets.sh localhost grafana.localhost`.quiet();
  const secrets = join(folder, "secrets");
  chmodSync(secrets, 0o755);
  const secret = (name: string) => readFileSync(join(secrets, name), "utf8");
  const replace = (name: string, text: string) => {
    rmSync(join(secrets, name));
    writeFileSync(join(secrets, name), text);
  };

  const [primary, replica, redis, metrics] = [await freePort(), await freePort(), await freePort(), await freePort()];
  const [first, second, https, http] = [await freePort(), await freePort(), await freePort(), await freePort()];
  const smtp = await startSmtp();
  ends.push(() => smtp.close());
  const hosts: Readonly<Record<string, string>> = {
    "@postgres-replica/": `@127.0.0.1:${replica}/`,
    "@postgres/": `@127.0.0.1:${primary}/`,
    "@redis": `@127.0.0.1:${redis}`,
  };
  for (const name of ["database_url", "database_admin_url", "replica_urls", "redis_url"]) {
    replace(name, replaceAll(secret(name), hosts));
  }
  replace("smtp_url", `smtp://127.0.0.1:${smtp.port}`);

  const addresses: Readonly<Record<string, string>> = {
    "/run/secrets/": `${secrets}/`,
    "10.87.1.10": "127.0.0.1",
    "10.87.1.11:8080": `127.0.0.1:${first}`,
    "10.87.1.12:8080": `127.0.0.1:${second}`,
    "10.87.2.10:3000": `127.0.0.1:${metrics}`,
    "0.0.0.0": "127.0.0.1",
    "http://collector:4318": `http://127.0.0.1:${metrics}/opentelemetry`,
  };
  const services = Bun.YAML.parse(readFileSync(join(compose, "compose.production.yaml"), "utf8")) as {
    services: Record<string, Service>;
  };
  const environmentOf = (name: string): Record<string, string> => {
    const { environment } = services.services[name] as Service;
    const local = Object.entries(environment).map(([key, value]) => [key, replaceAll(value, addresses)]);
    return plainEnvironment({
      ...Object.fromEntries(local),
      ...NO_LIMITS,
      PRIMER_SERVER__PUBLIC_URL: `https://localhost:${https}`,
      PRIMER_HOME: join(folder, "home"),
      PRIMER_BACKUP__FOLDER: "",
      PRIMER_BACKUP__KEY_FILE: "",
      // Straight to VictoriaMetrics, which takes no traces; where it is not here, nowhere.
      ...{ OTEL_METRIC_EXPORT_INTERVAL: "1s", OTEL_TRACES_SAMPLER_ARG: "0" },
      ...(VICTORIA ? {} : { OTEL_EXPORTER_OTLP_ENDPOINT: "" }),
    });
  };

  const query = await startDatabases({ folder, secrets, primary, replica, services: services.services }, ends);
  await startRedis(folder, secrets, redis, ends);
  const leftOut = [
    VICTORIA ? [] : ["VictoriaMetrics (victoria-metrics is not on the PATH)"],
    VICTORIA && VMALERT && existsSync(ALERTS) ? [] : ["vmalert (it, VictoriaMetrics or its rules are not here)"],
  ].flat();
  const flagsOf = (name: string, by: Readonly<Record<string, string>>) =>
    (services.services[name] as Service).command.map((flag) => replaceAll(flag, by));
  if (VICTORIA) {
    const flags = flagsOf("victoriametrics", { "=/storage": `=${folder}/metrics` });
    const child = run([VICTORIA, ...flags, `-httpListenAddr=127.0.0.1:${metrics}`], {});
    ends.push(() => child.end());
  }
  const alertsUrl = leftOut.length === 0 ? `http://127.0.0.1:${await freePort()}` : undefined;
  if (alertsUrl !== undefined) {
    const local = { "victoriametrics:8428": `127.0.0.1:${metrics}`, "/etc/alerts/vmalert.yml": ALERTS };
    const flags = flagsOf("vmalert", { ...local, "${ALERT_NOTIFIER:--notifier.blackhole}": "-notifier.blackhole" });
    const child = run([VMALERT ?? "", ...flags, `-httpListenAddr=${new URL(alertsUrl).host}`], {});
    ends.push(() => child.end());
  }

  const primer = async (words: readonly string[], input = "") => {
    const child = Bun.spawn([...PRIMER, ...words], {
      env: environmentOf("migrate"),
      stdio: [new Blob([input]), "pipe", "pipe"],
    });
    const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    return { exitCode: await child.exited, stdout, stderr };
  };
  const passwordFile = join(secrets, "admin_password");
  const made = await primer(["init", "--yes", "--algorithm", "ES256", "--admin-password-file", passwordFile]);
  if (made.exitCode !== 0) throw new Error(`init ended with ${made.exitCode}: ${made.stderr}`);

  const nodes = [] as unknown as [Node, Node];
  const startNode = async (index: 0 | 1) => {
    const port = [first, second][index];
    const url = `http://127.0.0.1:${port}`;
    const child = run([...PRIMER, "serve"], { ...environmentOf("api-1"), PRIMER_SERVER__PORT: String(port) });
    nodes[index] = { ...child, url };
    await untilReady(url).catch((error) => {
      throw new Error(`${error}\n${child.output()}`);
    });
  };
  ends.push(() => Promise.all(nodes.map((node) => node.end("SIGKILL"))));
  await Promise.all([startNode(0), startNode(1)]);
  for (const worker of [0, 1].map(() => run([...PRIMER, "worker"], environmentOf("worker")))) {
    ends.push(() => worker.end("SIGKILL"));
    await waitFor("a worker", () => worker.output().includes('"event":"worker.started"'));
  }
  const passed = await startProxy(folder, environmentOf("proxy"), addresses, { https, http }, ends);
  return {
    url: `https://localhost:${https}`,
    plainUrl: `http://127.0.0.1:${http}`,
    certificate: secret("tls.crt"),
    password: secret("admin_password"),
    nodes,
    smtp,
    passed,
    leftOut,
    metricsUrl: VICTORIA ? `http://127.0.0.1:${metrics}` : undefined,
    alertsUrl,
    startNode,
    primer,
    query,
  };
}

function replaceAll(text: string, by: Readonly<Record<string, string>>): string {
  return Object.entries(by).reduce((changed, [from, to]) => changed.replaceAll(from, to), text);
}

interface Databases {
  readonly folder: string;
  readonly secrets: string;
  readonly primary: number;
  readonly replica: number;
  readonly services: Readonly<Record<string, Service>>;
}

/** As the image does it: initdb, the script for the empty database, and the replica's own script as its process. */
async function startDatabases({ folder, secrets, primary, replica, services }: Databases, ends: (() => unknown)[]) {
  const binaries = postgresBinaries() ?? "";
  const home = join(folder, "postgres");
  mkdirSync(home);
  if (asServerUser.length > 0) await $`chown postgres ${home}`.quiet();
  const [data, copy] = [join(home, "primary"), join(home, "replica")];
  const settings = (name: string, port: number) => [
    ...(services[name] as Service).command.filter((word) => word.startsWith("-c")),
    ...[`-cport=${port}`, "-clisten_addresses=127.0.0.1", `-cunix_socket_directories=${home}`],
  ];
  await $`${asServerUser} ${binaries}/initdb -D ${data} -U postgres --pwfile=${secrets}/postgres_password --auth=scram-sha-256 --data-checksums -E UTF8 --no-sync`.quiet();
  const server = run([...asServerUser, `${binaries}/postgres`, "-D", data, ...settings("postgres", primary)], {});
  ends.push(() => stopPostgres(data, server));

  const password = readFileSync(join(secrets, "postgres_password"), "utf8");
  const client = {
    PATH: `${binaries}:${process.env.PATH}`,
    ...{ PGHOST: "127.0.0.1", PGPORT: String(primary), PGPASSWORD: password, SECRETS: secrets },
  };
  const isUp = (port: number) => async () =>
    (await $`${binaries}/pg_isready -h 127.0.0.1 -p ${port}`.quiet().nothrow()).exitCode === 0;
  await waitFor("PostgreSQL", isUp(primary));
  const script = { ...client, POSTGRES_USER: "postgres", PGDATA: data, REPLICA_NETWORK: "127.0.0.1/32" };
  await $`sh ${compose}/postgres/primary.sh`.env(script).quiet();
  const query = async (statement: string) =>
    (await $`${binaries}/psql -U postgres -d postgres -Atc ${statement}`.env(client).quiet().text()).trim();
  await query("SELECT pg_reload_conf()");

  const follower = run(
    [...asServerUser, "sh", join(compose, "postgres/replica.sh"), ...settings("postgres-replica", replica)],
    { ...client, PGDATA: copy, PRIMARY_HOST: "127.0.0.1", PRIMARY_PORT: String(primary) },
  );
  ends.push(() => stopPostgres(copy, follower));
  await waitFor("the replica", isUp(replica)).catch((error) => {
    throw new Error(`${error}\n${follower.output()}`);
  });
  return query;
}

/** Its own tool tells the postmaster; what was started may be `runuser`, which tells nobody. */
async function stopPostgres(data: string, server: Running): Promise<void> {
  await $`${asServerUser} ${postgresBinaries()}/pg_ctl -D ${data} -m immediate stop`.quiet().nothrow();
  await server.end();
}

async function startRedis(folder: string, secrets: string, port: number, ends: (() => unknown)[]): Promise<void> {
  const data = join(folder, "redis");
  mkdirSync(data);
  // Redis goes to `dir` while it reads its file, so an option that says otherwise comes too late.
  const file = join(folder, "redis.conf");
  const settings = readFileSync(join(compose, "redis/redis.conf"), "utf8");
  writeFileSync(file, replaceAll(settings, { "/run/secrets/": `${secrets}/`, "dir /data": `dir ${data}` }));
  const child = run([REDIS ?? "", file, "--port", String(port), "--bind", "127.0.0.1"], {});
  ends.push(() => child.end());
  await waitFor("Redis", () => child.output().includes("Ready to accept connections")).catch((error) => {
    throw new Error(`${error}\n${child.output()}`);
  });
}

/** Fills the template in as the image's entrypoint does: names of the environment, and nothing else that has a dollar. */
async function startProxy(
  folder: string,
  environment: Record<string, string>,
  addresses: Readonly<Record<string, string>>,
  { https, http }: { https: number; http: number },
  ends: (() => unknown)[],
): Promise<() => Passed[]> {
  const values: Record<string, string> = {
    ...environment,
    ...{ PRIMER_HOST: "localhost", GRAFANA_HOST: "grafana.localhost" },
    ...{ HTTPS_LISTEN: `127.0.0.1:${https}`, HTTP_LISTEN: `127.0.0.1:${http}` },
  };
  const scratch = join(folder, "nginx");
  mkdirSync(scratch);
  const accessLog = join(scratch, "access.log"); // Bun's pipes are sockets, which cannot be opened by name
  const template = readFileSync(join(compose, "nginx/nginx.conf.template"), "utf8")
    .replaceAll(" /tmp/", ` ${scratch}/`)
    .replace("/dev/stdout", accessLog);
  const filled = template.replace(/\$\{(\w+)\}/g, (whole, name: string) => values[name] ?? whole);
  const file = join(scratch, "nginx.conf");
  writeFileSync(file, replaceAll(filled, addresses));
  const checked = await $`${NGINX} -t -c ${file}`.quiet().nothrow();
  if (checked.exitCode !== 0 || checked.stderr.includes("[warn]")) throw new Error(`nginx -t: ${checked.stderr}`);
  const child = run([NGINX ?? "", "-c", file, "-g", "daemon off;"], {});
  ends.push(() => child.end());
  const isUp = () => fetch(`http://127.0.0.1:${http}`, { redirect: "manual" }).then(Boolean, () => false);
  await waitFor("nginx", isUp);
  return () =>
    readFileSync(accessLog, "utf8")
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line));
}
