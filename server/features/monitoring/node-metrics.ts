import { readdirSync, rmSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { DataPointType } from "@opentelemetry/sdk-metrics";
import { codeOf } from "../../../config/errors.ts";
import { type Collected, type Metrics, sumOf } from "../../../config/meter.ts";
import { withSocketPath } from "../../../config/socket-path.ts";
import type { Deps } from "../../deps.ts";

/** How long another process of this node may take to tell its metrics (milliseconds). */
const TELL_WITHIN_MS = 2000;
/** How long one that ends waits for another to take over what it has counted (milliseconds). */
const TAKE_OVER_WITHIN_MS = 500;
/** Of so many processes that are not there any more the counts are kept one by one; those of the longest gone, together. */
const MOST_GONE = 16;
/** So many of those are known by name, lest another process tells of one that is in the sum already. */
const MOST_NAMES = 1000;

/** What a socket says where the process that listened to it was killed. */
const DEAD = new Set(["ECONNREFUSED", "FailedToOpenSocket", "ConnectionRefused"]);

/** What follows the name of the machine, which may be the beginning of another one's. */
const RANDOM_PART = /^\d+-[\w-]{6}\.sock$/;

/** The metrics of all processes that work in one home on this machine. */
export interface NodeMetrics {
  /**
   * Together. Of one that is gone, or does not tell its own in time, what it had counted when last heard of: a sum that
   * falls looks to Prometheus as if all had begun anew.
   */
  collect(): Promise<Collected>;
  /** Hands over to the others what this process has counted. */
  close(): Promise<void>;
}

/** Of a process that is alone in its home. */
export const aloneInHome = (metrics: Metrics): NodeMetrics => ({
  collect: () => metrics.collect(),
  async close() {},
});

/** What a process had counted at some time (milliseconds since 1970). */
interface LastHeard {
  readonly at: number;
  readonly counted: Collected;
}

/** What those have counted together that are gone the longest, and which ones they are, by their sockets. */
interface LongGone {
  readonly names: readonly string[];
  readonly counted: Collected;
}

/** What a process tells another one: its own metrics, and what it has last heard of those that are gone, by their sockets. */
interface Told {
  readonly at: number;
  readonly own: Collected;
  readonly gone: Readonly<Record<string, LastHeard>>;
  readonly longGone: LongGone;
}

/** Amounts go with their process; what it has counted stays. */
const countedIn = (collected: Collected): Collected =>
  collected.filter(({ dataPointType }) => dataPointType !== DataPointType.GAUGE);

/**
 * Tells the metrics of this process to the others of its home, through a Unix socket that nobody else can open, and asks
 * them for theirs: whichever of them is asked for metrics has those of the whole node, the same ones.
 */
export async function shareMetrics(
  home: string,
  metrics: Metrics,
  ports: Pick<Deps, "random" | "clock">,
): Promise<NodeMetrics> {
  const { random, clock } = ports;
  const prefix = `metrics-${hostname()}-`; // the home may lie on a disk that several machines share
  const own = `${prefix}${process.pid}-${random.token().slice(0, 6)}.sock`;
  const heard = new Map<string, LastHeard>();
  let longGone: LongGone = { names: [], counted: [] };
  const before = process.umask(0o177);
  const server = await withSocketPath(home, own, (unix) =>
    Bun.serve({ unix, development: false, fetch: answer }),
  ).finally(() => process.umask(before));

  async function answer(request: Request): Promise<Response> {
    if (request.method === "PUT") {
      for (const [name, last] of Object.entries((await request.json()) as Told["gone"])) hear(name, last);
      return new Response(null, { status: 204 });
    }
    const at = clock.now().getTime();
    const gone = Object.fromEntries(goneOf(living()));
    return Response.json({ at, own: await metrics.collect(), gone, longGone } satisfies Told);
  }

  /** The latest counts, and so those that every other process of this home has heard, too, once they are asked. */
  function hear(name: string, last: LastHeard): void {
    if (name === own || longGone.names.includes(name) || (heard.get(name)?.at ?? 0) > last.at) return;
    heard.set(name, last);
    putTogether();
  }

  /** Of another process, which has put more of them together: those are in its sum, and no longer by themselves here. */
  function hearOfLongGone(told: LongGone): void {
    if (told.names.length <= longGone.names.length) return;
    longGone = told;
    for (const name of told.names) heard.delete(name);
  }

  /** Those that are not there any more, the last one first. */
  const goneOf = (names: readonly string[]) =>
    [...heard].filter(([name]) => !names.includes(name)).sort(([, one], [, other]) => other.at - one.at);

  function putTogether(): void {
    for (const [name, { counted }] of heard.size > MOST_GONE ? goneOf(living()).slice(MOST_GONE) : []) {
      const names = [...longGone.names, name].slice(-MOST_NAMES);
      longGone = { names, counted: sumOf([longGone.counted, counted]) };
      heard.delete(name);
    }
  }

  const living = () =>
    readdirSync(home).filter(
      (name) => name.startsWith(prefix) && RANDOM_PART.test(name.slice(prefix.length)) && name !== own,
    );

  const send = (name: string, options: RequestInit, withinMs: number) =>
    withSocketPath(home, name, (unix) =>
      fetch("http://node/", { ...options, unix, signal: AbortSignal.timeout(withinMs) }),
    );

  async function ask(name: string): Promise<Collected | undefined> {
    try {
      const told = (await (await send(name, {}, TELL_WITHIN_MS)).json()) as Told;
      hearOfLongGone(told.longGone);
      for (const [other, last] of Object.entries(told.gone)) hear(other, last);
      hear(name, { at: told.at, counted: countedIn(told.own) });
      return told.own;
    } catch (error) {
      if (DEAD.has(codeOf(error) ?? "")) rmSync(join(home, name), { force: true });
      return undefined;
    }
  }

  return {
    async collect() {
      const names = living();
      const told = new Map(await Promise.all(names.map(async (name) => [name, await ask(name)] as const)));
      const others = [...heard].map(([name, { counted }]) => told.get(name) ?? counted);
      return sumOf([await metrics.collect(), longGone.counted, ...others]);
    },
    async close() {
      const last: LastHeard = { at: clock.now().getTime(), counted: countedIn(await metrics.collect()) };
      const body = JSON.stringify({ [own]: last } satisfies Told["gone"]);
      await Promise.allSettled(living().map((name) => send(name, { method: "PUT", body }, TAKE_OVER_WITHIN_MS)));
      server.stop(true);
      rmSync(join(home, own), { force: true });
    },
  };
}
