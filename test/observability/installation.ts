/**
 * One installation as it is watched: two nodes on one PostgreSQL with a replica, Redis and a mail server. One node sends
 * its metrics to a VictoriaMetrics, the other one is asked for them, and a vmalert looks at both every second.
 */
import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type OwnPostgres, ownPostgres } from "../drills/own-postgres.ts";
import { type Child, initHome, primer, scratchFolder, serve, waitFor } from "../drills/processes.ts";
import { certificateAuthority } from "../support/certificates.ts";
import { openPostgresAt } from "../support/database.ts";
import { type OwnRedis, ownRedis } from "../support/redis.ts";
import { freePort } from "../support/services.ts";
import { startVictoria, startVmalert, type Victoria, type Vmalert } from "../support/victoria.ts";
import { type SmtpHost, startSmtp } from "../worker/support/smtp.ts";
import { RULES } from "./rules.ts";

const METRICS_TOKEN = "a-token-for-those-who-collect-metrics";
const BOTH_SEEN = "count by (environment) (primer_info)";
/** How the addresses of a network begin from which nobody is let in. */
export const BAD_NETWORK = "203.0.113.";
/** Registrations that are let in. */
export const REGISTRATIONS = 15;

/** A node with its worker, and the environment that it says it is: so what each of them tells can be told apart. */
export interface Node {
  readonly environment: "development" | "staging";
  readonly url: string;
  /** Undefined for http. */
  readonly ca: string | undefined;
  startWorker(): Promise<Child>;
}

export interface Installation {
  readonly nodes: readonly [pushed: Node, scraped: Node];
  readonly postgres: OwnPostgres;
  readonly redis: OwnRedis;
  readonly smtp: SmtpHost;
  readonly victoria: Victoria;
  readonly vmalert: Vmalert;
  /** Gives the node that serves https another certificate, which is good for so many days. */
  certify(days: number): void;
  /** Statements as the owner of the tables. */
  query(sql: string): Promise<unknown[]>;
  remove(): Promise<void>;
}

/** A time zone in which it is five in the morning, so that what is done at night was due a moment ago. */
function zoneOfMorning(): string {
  const ahead = ((5 - new Date().getUTCHours() + 36) % 24) - 12;
  return `Etc/GMT${ahead > 0 ? "-" : "+"}${Math.abs(ahead)}`;
}

/** Starts all of it. Where that fails, what was started is ended. */
export async function openInstallation(): Promise<Installation> {
  const ends: (() => unknown)[] = [];
  const remove = async () => {
    for (const end of ends.splice(0).reverse()) await end();
  };
  try {
    return { ...(await start(ends)), remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** @param ends gets how each thing is ended that was started, in that order */
async function start(ends: (() => unknown)[]): Promise<Omit<Installation, "remove">> {
  const scratch = scratchFolder();
  ends.push(scratch.remove);
  const [postgres, redis, smtp, port] = await Promise.all([
    ownPostgres(),
    ownRedis(),
    startSmtp({ onRecipient: answerTo }),
    freePort(),
  ]);
  ends.push(postgres.remove, redis.remove, smtp.close);
  const replica = await postgres.replica();
  ends.push(replica.remove);
  const [home, other] = [join(scratch.path, "pushed"), join(scratch.path, "scraped")];
  const authority = certificateAuthority();
  const files = { cert: join(scratch.path, "cert.pem"), key: join(scratch.path, "key.pem") };
  const certify = (days: number) => {
    const { cert, key } = authority.issue(["127.0.0.1", "localhost"], days);
    writeFileSync(files.cert, cert);
    writeFileSync(files.key, key);
  };
  certify(90);
  const victoria = await startVictoria([
    {
      job_name: "primer",
      scrape_interval: "1s",
      scheme: "https",
      tls_config: { insecure_skip_verify: true },
      authorization: { credentials: METRICS_TOKEN },
      static_configs: [{ targets: [`127.0.0.1:${port}`] }],
    },
  ]);
  ends.push(victoria.stop);
  const both = {
    DATABASE_URL: postgres.url,
    REDIS_URL: `redis://127.0.0.1:${redis.port}`,
    SMTP_URL: `smtp://127.0.0.1:${smtp.port}`,
    PRIMER_DATABASE__REPLICA_URLS: replica.url,
    PRIMER_MAIL__TLS: "off",
    PRIMER_MAIL__FROM: "primer@example.org",
    PRIMER_SERVER__PUBLIC_URL: "https://login.example.org",
    PRIMER_SERVER__DRAIN_DELAY: "0s",
    PRIMER_TOKENS__REFRESH_GRACE: "0s",
    PRIMER_KEYS__ROTATE_EVERY: "90d",
    PRIMER_PASSWORD__HASH_TIMEOUT: "600ms",
    PRIMER_RATE_LIMITS__REGISTER_IP: `${REGISTRATIONS}/1h`,
    PRIMER_SERVER__TRUSTED_PROXIES: "127.0.0.1",
    PRIMER_THREATS__SOURCES: "bad-networks.txt",
    PRIMER_THREATS__ACTION: "refuse",
    PRIMER_WORKER__TIME_ZONE: zoneOfMorning(),
    PRIMER_BACKUP__FOLDER: join(scratch.path, "backups"),
    PRIMER_BACKUP__KEY_FILE: join(scratch.path, "passphrase"),
  };
  writeFileSync(both.PRIMER_BACKUP__KEY_FILE, "a passphrase that is long enough for a backup");
  writeFileSync(both.PRIMER_BACKUP__FOLDER, "a file, in which no backup can be put");
  await initHome(home, both);
  writeFileSync(join(home, "bad-networks.txt"), `${BAD_NETWORK}0/24\n`);
  cpSync(home, other, { recursive: true });
  const pushed = {
    ...both,
    OTEL_EXPORTER_OTLP_ENDPOINT: `${victoria.url}/opentelemetry`,
    PRIMER_TELEMETRY__EXPORT_INTERVAL: "1s",
    PRIMER_TELEMETRY__TRACE_RATIO: "0",
  };
  const scraped = {
    ...both,
    PRIMER_ENVIRONMENT: "staging",
    PRIMER_SERVER__TLS_CERT: files.cert,
    PRIMER_SERVER__TLS_KEY: files.key,
    PRIMER_TELEMETRY__METRICS_TOKEN: METRICS_TOKEN,
  };
  const startWorker = async (folder: string, variables: Record<string, string>) => {
    const child = primer(folder, ["worker"], variables);
    ends.push(child.kill);
    await child.until((out) => out.includes('"worker.started"'));
    return child;
  };
  const first = await serve(home, pushed);
  ends.push(first.kill);
  const second = primer(other, ["serve", "--no-worker", "--port", String(port)], scraped);
  ends.push(second.kill);
  await second.until((out) => out.includes('"server.started"'));
  const db = await openPostgresAt(postgres.url);
  ends.push(db.close);
  await waitFor("metrics of both nodes", async () => (await victoria.query(BOTH_SEEN)).length === 2);
  const vmalert = await startVmalert(RULES, victoria.url);
  ends.push(vmalert.stop);
  return {
    nodes: [
      { environment: "development", url: first.url, ca: undefined, startWorker: () => startWorker(home, pushed) },
      {
        environment: "staging",
        url: `https://127.0.0.1:${port}`,
        ca: authority.cert,
        startWorker: () => startWorker(other, scraped),
      },
    ],
    postgres,
    redis,
    smtp,
    victoria,
    vmalert,
    certify,
    query: (sql) => db.query(sql),
  };
}

/** Some addresses this mail server refuses for good, some for now. */
function answerTo(address: string) {
  if (address.startsWith("refused")) return { responseCode: 550, message: "5.1.1 No such user" };
  if (address.startsWith("later")) return { responseCode: 451, message: "4.3.0 Try again later" };
  return undefined;
}
