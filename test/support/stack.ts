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

const PORTS = ["primary", "replica", "redis", "metrics", "alerts", "first", "second", "https", "http"] as const;

/** What all parts of the stack share. */
interface Plan {
  readonly folder: string;
  /** The folder with a secret in each file, as make-secrets.sh makes it. */
  readonly secrets: string;
  readonly ports: Readonly<Record<(typeof PORTS)[number], number>>;
  /** Those of compose.production.yaml, by name. */
  readonly services: Readonly<Record<string, Service>>;
  /** What ends each part, in the order of their start. */
  readonly ends: (() => unknown)[];
}

const secretOf = ({ secrets }: Plan, name: string) => readFileSync(join(secrets, name), "utf8");

async function plan(ends: (() => unknown)[]): Promise<Plan> {
  const folder = mkdtempSync(join(tmpdir(), "primer-stack-"));
  ends.push(() => rmSync(folder, { recursive: true, force: true }));
  chmodSync(folder, 0o755); // PostgreSQL, as a user of its own, reads its password there
  cpSync(join(compose, "make-secrets.sh"), join(folder, "make-secrets.sh"));
  await $`${folder}/make-secrets.sh localhost grafana.localhost`.quiet();
  const secrets = join(folder, "secrets");
  chmodSync(secrets, 0o755);
  const ports = {} as Record<(typeof PORTS)[number], number>;
  for (const name of PORTS) ports[name] = await freePort();
  const file = Bun.YAML.parse(readFileSync(join(compose, "compose.production.yaml"), "utf8"));
  return { folder, secrets, ports, ends, services: (file as { services: Plan["services"] }).services };
}

/** The URLs among the secrets name containers: they are made to name this machine. */
function pointSecretsHere(stack: Plan, smtpPort: number): void {
  const { ports, secrets } = stack;
  const replace = (name: string, text: string) => {
    rmSync(join(secrets, name));
    writeFileSync(join(secrets, name), text);
  };
  const hosts = {
    "@postgres-replica/": `@127.0.0.1:${ports.replica}/`,
    "@postgres/": `@127.0.0.1:${ports.primary}/`,
    "@redis": `@127.0.0.1:${ports.redis}`,
  };
  for (const name of ["database_url", "database_admin_url", "replica_urls", "redis_url"]) {
    replace(name, replaceAll(secretOf(stack, name), hosts));
  }
  replace("smtp_url", `smtp://127.0.0.1:${smtpPort}`);
}

/** What stands for the addresses and paths of containers. */
const addressesOf = ({ ports, secrets, folder }: Plan) => ({
  "/run/secrets/": `${secrets}/`,
  "10.87.1.10": "127.0.0.1",
  "10.87.1.11:8080": `127.0.0.1:${ports.first}`,
  "10.87.1.12:8080": `127.0.0.1:${ports.second}`,
  "10.87.2.10:3000": `127.0.0.1:${ports.metrics}`,
  "0.0.0.0": "127.0.0.1",
  "http://collector:4318": `http://127.0.0.1:${ports.metrics}/opentelemetry`,
  "victoriametrics:8428": `127.0.0.1:${ports.metrics}`,
  "=/storage": `=${folder}/metrics`,
  "/etc/alerts/vmalert.yml": ALERTS,
  "${ALERT_NOTIFIER:--notifier.blackhole}": "-notifier.blackhole",
});

/** The environment that a container would get. */
function environmentOf(stack: Plan, name: string): Record<string, string> {
  const environment = Object.entries(stack.services[name]?.environment ?? {});
  return plainEnvironment({
    ...Object.fromEntries(environment.map(([key, value]) => [key, replaceAll(value, addressesOf(stack))])),
    ...NO_LIMITS,
    PRIMER_SERVER__PUBLIC_URL: `https://localhost:${stack.ports.https}`,
    PRIMER_HOME: join(stack.folder, "home"),
    PRIMER_BACKUP__FOLDER: "",
    PRIMER_BACKUP__KEY_FILE: "",
    // Straight to VictoriaMetrics, which takes no traces; where it is not here, nowhere.
    OTEL_METRIC_EXPORT_INTERVAL: "1s",
    OTEL_TRACES_SAMPLER_ARG: "0",
    ...(VICTORIA ? {} : { OTEL_EXPORTER_OTLP_ENDPOINT: "" }),
  });
}

async function assemble(ends: (() => unknown)[]): Promise<Omit<Stack, "remove">> {
  const stack = await plan(ends);
  const smtp = await startSmtp();
  ends.push(() => smtp.close());
  pointSecretsHere(stack, smtp.port);
  const query = await startDatabases(stack);
  await startRedis(stack);
  const observed = startMetrics(stack);

  const primer: Stack["primer"] = async (words, input = "") => {
    const env = environmentOf(stack, "migrate");
    const child = Bun.spawn([...PRIMER, ...words], { env, stdio: [new Blob([input]), "pipe", "pipe"] });
    const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    return { exitCode: await child.exited, stdout, stderr };
  };
  const passwordFile = join(stack.secrets, "admin_password");
  const made = await primer(["init", "--yes", "--algorithm", "ES256", "--admin-password-file", passwordFile]);
  if (made.exitCode !== 0) throw new Error(`init ended with ${made.exitCode}: ${made.stderr}`);

  const { nodes, startNode } = await startNodes(stack);
  for (let count = 0; count < 2; count++) {
    const worker = run([...PRIMER, "worker"], environmentOf(stack, "worker"));
    ends.push(() => worker.end("SIGKILL"));
    await waitFor("a worker", () => worker.output().includes('"event":"worker.started"'));
  }
  const passed = await startProxy(stack);
  return {
    url: `https://localhost:${stack.ports.https}`,
    plainUrl: `http://127.0.0.1:${stack.ports.http}`,
    certificate: secretOf(stack, "tls.crt"),
    password: secretOf(stack, "admin_password"),
    ...{ nodes, smtp, passed, ...observed, startNode, primer, query },
  };
}

async function startNodes(stack: Plan): Promise<Pick<Stack, "nodes" | "startNode">> {
  const nodes = [] as unknown as [Node, Node];
  const startNode = async (index: 0 | 1) => {
    const port = [stack.ports.first, stack.ports.second][index];
    const url = `http://127.0.0.1:${port}`;
    const environment = { ...environmentOf(stack, "api-1"), PRIMER_SERVER__PORT: String(port) };
    const child = run([...PRIMER, "serve"], environment);
    nodes[index] = { ...child, url };
    await untilReady(url).catch((error) => {
      throw new Error(`${error}\n${child.output()}`);
    });
  };
  stack.ends.push(() => Promise.all(nodes.map((node) => node.end("SIGKILL"))));
  await Promise.all([startNode(0), startNode(1)]);
  return { nodes, startNode };
}

/** VictoriaMetrics and vmalert, where they are on this machine. */
function startMetrics(stack: Plan): Pick<Stack, "leftOut" | "metricsUrl" | "alertsUrl"> {
  const start = (program: string, name: string, port: number) => {
    const flags = (stack.services[name]?.command ?? []).map((flag) => replaceAll(flag, addressesOf(stack)));
    const child = run([program, ...flags, `-httpListenAddr=127.0.0.1:${port}`], {});
    stack.ends.push(() => child.end());
    return `http://127.0.0.1:${port}`;
  };
  const canAlert = VICTORIA && VMALERT && existsSync(ALERTS);
  const leftOut = [
    VICTORIA ? [] : ["VictoriaMetrics (victoria-metrics is not on the PATH)"],
    canAlert ? [] : ["vmalert (it, VictoriaMetrics or its rules are not here)"],
  ].flat();
  const metricsUrl = VICTORIA ? start(VICTORIA, "victoriametrics", stack.ports.metrics) : undefined;
  const alertsUrl = canAlert ? start(VMALERT, "vmalert", stack.ports.alerts) : undefined;
  return { leftOut, metricsUrl, alertsUrl };
}

function replaceAll(text: string, by: Readonly<Record<string, string>>): string {
  return Object.entries(by).reduce((changed, [from, to]) => changed.replaceAll(from, to), text);
}

/** As the image does it: initdb, the script for the empty database, and the replica's own script as its process. */
async function startDatabases({ folder, secrets, ports, services, ends }: Plan): Promise<Stack["query"]> {
  const { primary, replica } = ports;
  const binaries = postgresBinaries() ?? "";
  const home = join(folder, "postgres");
  mkdirSync(home);
  if (asServerUser.length > 0) await $`chown postgres ${home}`.quiet();
  const [data, copy] = [join(home, "primary"), join(home, "replica")];
  const settings = (name: string, port: number) => [
    ...(services[name]?.command ?? []).filter((word) => word.startsWith("-c")),
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

async function startRedis({ folder, secrets, ports, ends }: Plan): Promise<void> {
  const data = join(folder, "redis");
  mkdirSync(data);
  // Redis goes to `dir` while it reads its file, so an option that says otherwise comes too late.
  const file = join(folder, "redis.conf");
  const settings = readFileSync(join(compose, "redis/redis.conf"), "utf8");
  writeFileSync(file, replaceAll(settings, { "/run/secrets/": `${secrets}/`, "dir /data": `dir ${data}` }));
  const child = run([REDIS ?? "", file, "--port", String(ports.redis), "--bind", "127.0.0.1"], {});
  ends.push(() => child.end());
  await waitFor("Redis", () => child.output().includes("Ready to accept connections")).catch((error) => {
    throw new Error(`${error}\n${child.output()}`);
  });
}

/** Fills the template in as the image's entrypoint does: names of the environment, and nothing else that has a dollar. */
async function startProxy(stack: Plan): Promise<() => Passed[]> {
  const { folder, ports, ends } = stack;
  const values: Record<string, string> = {
    ...environmentOf(stack, "proxy"),
    ...{ PRIMER_HOST: "localhost", GRAFANA_HOST: "grafana.localhost" },
    ...{ HTTPS_LISTEN: `127.0.0.1:${ports.https}`, HTTP_LISTEN: `127.0.0.1:${ports.http}` },
  };
  const scratch = join(folder, "nginx");
  mkdirSync(scratch);
  const accessLog = join(scratch, "access.log"); // Bun's pipes are sockets, which cannot be opened by name
  const template = readFileSync(join(compose, "nginx/nginx.conf.template"), "utf8")
    .replaceAll(" /tmp/", ` ${scratch}/`)
    .replace("/dev/stdout", accessLog);
  const filled = template.replace(/\$\{(\w+)\}/g, (whole, name: string) => values[name] ?? whole);
  const file = join(scratch, "nginx.conf");
  writeFileSync(file, filled);
  const checked = await $`${NGINX} -t -c ${file}`.quiet().nothrow();
  if (checked.exitCode !== 0 || checked.stderr.includes("[warn]")) throw new Error(`nginx -t: ${checked.stderr}`);
  const child = run([NGINX ?? "", "-c", file, "-g", "daemon off;"], {});
  ends.push(() => child.end());
  const isUp = () => fetch(`http://127.0.0.1:${ports.http}`, { redirect: "manual" }).then(Boolean, () => false);
  await waitFor("nginx", isUp);
  return () =>
    readFileSync(accessLog, "utf8")
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line));
}
