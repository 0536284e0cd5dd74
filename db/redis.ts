import { Cluster, Redis } from "ioredis";
import type { Settings } from "../config/schema.ts";

/** Redis speeds up and is never waited for: whatever it does not answer by then is done without it (milliseconds). */
const COMMAND_TIMEOUT_MS = 100;
const CONNECT_TIMEOUT_MS = 2000;
const LONGEST_RETRY_MS = 1000;

/** Commands by a script, on whatever kind of Redis the settings name. */
export interface RedisScripts {
  /** Runs a Lua script on these keys, which must share a hash tag. @throws where there is no answer in time */
  run(
    script: { readonly name: string; readonly lua: string },
    keys: readonly string[],
    args: readonly string[],
  ): Promise<unknown>;
  /** Milliseconds that an answer takes. @throws where there is none in time */
  ping(): Promise<number>;
  /** Memory that the server uses and may use, in bytes; 0: as much as there is. @throws where it does not tell in time */
  memory(): Promise<{ used: number; limit: number }>;
  isClosed(): boolean;
  close(): void;
}

const retry = (times: number) => Math.min(50 * 2 ** Math.min(times, 6), LONGEST_RETRY_MS);

/** Connects in the background, and again whenever the connection is lost; commands fail at once meanwhile. */
export function openRedis(settings: Settings["redis"]): RedisScripts {
  const client = connect(settings);
  let closed = false;
  client.on("error", () => {}); // every command that fails also rejects
  const sent = new Map<string, (keys: number, ...given: string[]) => Promise<unknown>>();
  return {
    run({ name, lua }, keys, args) {
      if (!sent.has(name)) {
        client.defineCommand(name, { lua });
        sent.set(name, Reflect.get(client, name).bind(client));
      }
      const command = sent.get(name);
      return command ? command(keys.length, ...keys, ...args) : Promise.reject(new Error(`No command ${name}`));
    },
    async ping() {
      const began = performance.now();
      await client.ping();
      return performance.now() - began;
    },
    async memory() {
      const told = await client.info("memory");
      const bytes = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, "m").exec(told)?.[1] ?? Number.NaN);
      return { used: bytes("used_memory"), limit: bytes("maxmemory") };
    },
    isClosed: () => closed,
    close() {
      closed = true;
      client.disconnect();
    },
  };
}

function connect(settings: Settings["redis"]): Redis | Cluster {
  const { url, cluster, sentinels, sentinel_master, sentinel_username, sentinel_password } = settings;
  const common = {
    commandTimeout: COMMAND_TIMEOUT_MS,
    connectTimeout: CONNECT_TIMEOUT_MS,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
  };
  const { hostname, port, username, password, protocol, pathname } = new URL(url);
  const host = hostname.replace(/^\[(.*)\]$/, "$1");
  const isTls = protocol === "rediss:";
  const tls = isTls ? { tls: { servername: host } } : {};
  const db = Number(pathname.slice(1) || 0);
  const who = {
    ...(username ? { username: decodeURIComponent(username) } : {}),
    ...(password ? { password: decodeURIComponent(password) } : {}),
  };
  if (cluster) {
    return new Cluster([{ host, port: Number(port || 6379) }], {
      enableOfflineQueue: false,
      clusterRetryStrategy: retry,
      redisOptions: { ...common, ...tls, ...who },
    });
  }
  if (sentinels.length > 0) {
    const nodes = sentinels.map((node) => {
      const [sentinel = "", sentinelPort = "26379"] = node.split(/:(?=\d+$)/);
      return { host: sentinel, port: Number(sentinelPort) };
    });
    return new Redis({
      ...common,
      ...who,
      db,
      // The server's name is what the Sentinels say it is; its certificate is checked against that.
      ...(isTls ? { tls: {}, enableTLSForSentinelMode: true } : {}),
      sentinels: nodes,
      ...(sentinel_username ? { sentinelUsername: sentinel_username } : {}),
      ...(sentinel_password ? { sentinelPassword: sentinel_password } : {}),
      name: sentinel_master,
      retryStrategy: retry,
      sentinelRetryStrategy: retry,
    });
  }
  return new Redis({ ...common, ...tls, ...who, host, port: Number(port || 6379), db, retryStrategy: retry });
}
