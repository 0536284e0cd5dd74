import { readdirSync, rmSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { codeOf } from "../../../config/errors.ts";
import { type Collected, type Metrics, sumOf } from "../../../config/meter.ts";
import { withSocketPath } from "../../../config/socket-path.ts";
import type { Random } from "../../ports/random.ts";

/** How long another process of this node may take to tell its metrics (milliseconds). */
const TELL_WITHIN_MS = 2000;
/** What a socket says where the process that listened to it was killed. */
const DEAD = new Set(["ECONNREFUSED", "FailedToOpenSocket", "ConnectionRefused"]);

/** What follows the name of the machine, which may be the beginning of another one's. */
const RANDOM_PART = /^\d+-[\w-]{6}\.sock$/;

/** The metrics of all processes that work in one home on this machine. */
export interface NodeMetrics {
  /** Together; without one that does not tell its own in time. */
  collect(): Promise<Collected>;
  close(): void;
}

/** Of a process that is alone in its home. */
export const aloneInHome = (metrics: Metrics): NodeMetrics => ({ collect: () => metrics.collect(), close() {} });

/**
 * Tells the metrics of this process to the others of its home, through a Unix socket that nobody else can open, and asks
 * them for theirs: whichever of them is asked for metrics has those of the whole node.
 */
export async function shareMetrics(home: string, metrics: Metrics, random: Random): Promise<NodeMetrics> {
  const prefix = `metrics-${hostname()}-`; // the home may lie on a disk that several machines share
  const own = `${prefix}${process.pid}-${random.token().slice(0, 6)}.sock`;
  const before = process.umask(0o177);
  const server = await withSocketPath(home, own, (unix) =>
    Bun.serve({ unix, development: false, fetch: async () => Response.json(await metrics.collect()) }),
  ).finally(() => process.umask(before));

  async function ask(name: string): Promise<Collected> {
    try {
      return await withSocketPath(home, name, async (unix) => {
        const answer = await fetch("http://node/", { unix, signal: AbortSignal.timeout(TELL_WITHIN_MS) });
        return (await answer.json()) as Collected;
      });
    } catch (error) {
      if (DEAD.has(codeOf(error) ?? "")) rmSync(join(home, name), { force: true });
      return [];
    }
  }
  return {
    async collect() {
      const others = readdirSync(home).filter(
        (name) => name.startsWith(prefix) && RANDOM_PART.test(name.slice(prefix.length)) && name !== own,
      );
      return sumOf(await Promise.all([metrics.collect(), ...others.map(ask)]));
    },
    close() {
      server.stop(true);
      rmSync(join(home, own), { force: true });
    },
  };
}
