import { readdirSync, rmSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { DataPointType } from "@opentelemetry/sdk-metrics";
import { codeOf } from "../../../config/errors.ts";
import { type Collected, type Metrics, sumOf } from "../../../config/meter.ts";
import { withSocketPath } from "../../../config/socket-path.ts";
import type { Random } from "../../ports/random.ts";

/** How long another process of this node may take to tell its metrics (milliseconds). */
const TELL_WITHIN_MS = 2000;
/** What a socket says where the process that listened to it was killed. */
const DEAD = new Set(["ECONNREFUSED", "FailedToOpenSocket", "ConnectionRefused"]);

/** How long one that ends waits for the others to take over what it has counted (milliseconds). */
const TAKE_OVER_WITHIN_MS = 500;
/** What so many processes have counted that are gone is kept; a node on which more have ended begins anew with the oldest. */
const MOST_GONE = 64;

/** The metrics of all processes that work in one home on this machine. */
export interface NodeMetrics {
  /**
   * Together; without one that does not tell its own in time. What processes have counted that are gone stays in it, as
   * long as one is there that has seen them: otherwise the end of one would look as if all had begun anew.
   */
  collect(): Promise<Collected>;
  close(): Promise<void>;
}

/** What a process tells another one: its own metrics, and what those have counted that are gone, by their sockets. */
interface Told {
  readonly own: Collected;
  readonly gone: Readonly<Record<string, Collected>>;
}

/** Of a process that is alone in its home. */
export const aloneInHome = (metrics: Metrics): NodeMetrics => ({
  collect: () => metrics.collect(),
  async close() {},
});

/** Amounts go with their process; what it has counted stays. */
const countedIn = (collected: Collected): Collected =>
  collected.filter(({ dataPointType }) => dataPointType !== DataPointType.GAUGE);

/**
 * Tells the metrics of this process to the others of its home, through a Unix socket that nobody else can open, and asks
 * them for theirs: whichever of them is asked for metrics has those of the whole node.
 */
export async function shareMetrics(home: string, metrics: Metrics, random: Random): Promise<NodeMetrics> {
  const prefix = `metrics-${hostname()}-`; // the home may lie on a disk that several machines share
  const own = `${prefix}${process.pid}-${random.token().slice(0, 6)}.sock`;
  const seen = new Map<string, Collected>();
  const gone = new Map<string, Collected>();

  function takeOver(name: string, counted: Collected): void {
    gone.set(name, counted);
    const [oldest] = gone.keys();
    if (gone.size > MOST_GONE && oldest !== undefined) gone.delete(oldest);
  }

  async function answer(request: Request): Promise<Response> {
    if (request.method === "PUT") {
      const { name, counted } = (await request.json()) as { name: string; counted: Collected };
      takeOver(name, counted);
      return new Response(null, { status: 204 });
    }
    return Response.json({ own: await metrics.collect(), gone: Object.fromEntries(gone) } satisfies Told);
  }
  const before = process.umask(0o177);
  const server = await withSocketPath(home, own, (unix) =>
    Bun.serve({ unix, development: false, fetch: answer }),
  ).finally(() => process.umask(before));

  const others = () =>
    readdirSync(home).filter((name) => name.startsWith(prefix) && name.endsWith(".sock") && name !== own);
  const send = (name: string, options: RequestInit, withinMs: number) =>
    withSocketPath(home, name, (unix) =>
      fetch("http://node/", { ...options, unix, signal: AbortSignal.timeout(withinMs) }),
    );

  async function ask(name: string): Promise<Collected> {
    try {
      const told = (await (await send(name, {}, TELL_WITHIN_MS)).json()) as Told;
      for (const [other, counted] of Object.entries(told.gone)) takeOver(other, counted);
      seen.set(name, countedIn(told.own));
      return told.own;
    } catch (error) {
      if (!DEAD.has(codeOf(error) ?? "")) return [];
      rmSync(join(home, name), { force: true });
      const last = seen.get(name);
      if (last) takeOver(name, last);
      return [];
    }
  }
  return {
    async collect() {
      const living = await Promise.all([metrics.collect(), ...others().map(ask)]);
      return sumOf([...living, ...gone.values()]);
    },
    async close() {
      const counted = countedIn(await metrics.collect());
      const body = JSON.stringify({ name: own, counted });
      await Promise.allSettled(others().map((name) => send(name, { method: "PUT", body }, TAKE_OVER_WITHIN_MS)));
      server.stop(true);
      rmSync(join(home, own), { force: true });
    },
  };
}
