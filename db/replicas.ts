import { drizzle } from "drizzle-orm/postgres-js";
import type postgres from "postgres";
import { type BoundedPool, rowsOf } from "./bounded-pool.ts";
import type { Orm, Replica } from "./database.ts";
import { withinDeadline } from "./deadline.ts";

/** How far replicas are behind is looked at no more often than this (milliseconds), and only while they are used. */
const LOOK_EVERY_MS = 1000;
/** Nobody waits longer for that look, nor for a replica's answer: the primary has it too (milliseconds). */
const LOOK_PATIENCE_MS = 500;
const READ_PATIENCE_MS = 1000;

/** A place in the primary's log, and a time at which everything that was committed stood before it. */
interface Mark {
  readonly at: number;
  readonly lsn: number;
}

export interface Replicas {
  /** Reads from a replica that is not too far behind, else from the primary. What a replica fails at, the primary does. */
  readonly orm: Orm;
  readonly list: readonly Replica[];
  close(): Promise<void>;
}

/**
 * Spreads reads that may lag over replicas. How far one is behind is told by the primary's own log: a replica that has
 * replayed it up to a place knows everything from before the time when the primary was there. (The times that a replica
 * tells of itself say nothing while nothing is written, or while it has lost its primary.)
 */
export function openReplicas(primary: BoundedPool, pools: readonly BoundedPool[], maxLagMs: number): Replicas {
  const members = pools.map((pool) => ({ pool, provenAt: Number.NEGATIVE_INFINITY }));
  for (const { client } of pools) drizzle(client); // sets how its connections read and write values
  const marks: Mark[] = [];
  let lookedAt = Number.NEGATIVE_INFINITY;
  let looking: Promise<unknown> = Promise.resolve();
  let turn = 0;
  const lagOf = ({ provenAt }: (typeof members)[number]) => performance.now() - provenAt;

  function look(): Promise<unknown> {
    if (performance.now() - lookedAt < LOOK_EVERY_MS) return looking;
    lookedAt = performance.now();
    looking = withinDeadline(lookNow(), LOOK_PATIENCE_MS).catch(() => {}); // then what was known before counts
    return looking;
  }

  async function lookNow(): Promise<void> {
    const at = performance.now();
    const [row] = await primary.client.unsafe("SELECT (pg_current_wal_lsn() - '0/0')::float8 AS lsn");
    marks.push({ at, lsn: Number(row?.lsn) });
    while (marks[0] && at - marks[0].at > maxLagMs) marks.shift();
    await Promise.allSettled(
      members.map(async (member) => {
        const [state] = await member.pool.client.unsafe(
          "SELECT pg_is_in_recovery() AS is_replica, (pg_last_wal_replay_lsn() - '0/0')::float8 AS lsn",
        );
        const reached = marks.findLast(({ lsn }) => lsn <= Number(state?.lsn));
        // One that was made a primary goes its own way from then on.
        if (!state?.is_replica) member.provenAt = Number.NEGATIVE_INFINITY;
        else if (reached) member.provenAt = Math.max(member.provenAt, reached.at);
      }),
    );
  }

  async function pick(): Promise<BoundedPool | undefined> {
    await look();
    const usable = members.filter((member) => lagOf(member) <= maxLagMs && isUp(member.pool));
    return usable[turn++ % Math.max(1, usable.length)]?.pool;
  }

  const unsafe = (...given: Parameters<postgres.Sql["unsafe"]>) =>
    rowsOf(async (asValues) => {
      const send = async ({ client }: BoundedPool) => {
        const query = client.unsafe(...given);
        return asValues ? query.values() : query;
      };
      const replica = await pick();
      if (!replica) return send(primary);
      return withinDeadline(send(replica), READ_PATIENCE_MS).catch(() => send(primary));
    });
  const client = { options: primary.client.options, unsafe } as unknown as postgres.Sql;

  return {
    orm: drizzle(client) as unknown as Orm,
    list: members.map((member) => ({
      breaker: member.pool.breaker,
      poolUse: member.pool.use,
      async ping() {
        await Promise.all([member.pool.client.unsafe("SELECT 1"), look()]);
      },
      lagMs: () => (Number.isFinite(member.provenAt) ? lagOf(member) : null),
    })),
    close: async () => void (await Promise.all(pools.map((pool) => pool.close()))),
  };
}

const isUp = ({ breaker }: BoundedPool) => breaker.status().state === "closed";
