import { setTimeout } from "node:timers/promises";
import postgres from "postgres";
import { CHANGE_CHANNEL, type ChangeFeed, type ChangeListener, parseChange } from "./database.ts";
import { unlessAborted, withinDeadline } from "./deadline.ts";

const BEAT_MS = 250;
/** A feed without a beat for this long is given up, and another one opened. */
const LOST_AFTER_MS = 3000;
/** How long a change waits until its own process has heard of it; past that, everything remembered is dropped. */
const SETTLED_WITHIN_MS = 500;

/**
 * Listens for changes on a connection of its own. Every quarter of a second it sends itself a beat through the server:
 * PostgreSQL tells in the order of commits, so a beat that arrives proves that every change from before it has arrived.
 *
 * @param options how to connect: as the pool does, that is with its deadlines and its certificate
 */
export function watchPostgres(
  url: string,
  options: postgres.Options<Record<string, never>>,
  listener: ChangeListener,
): ChangeFeed {
  let completeUntil = Number.NEGATIVE_INFINITY;
  let sendBeat: ((sentAt: number) => Promise<unknown>) | undefined;
  let works = true;
  const closing = new AbortController();
  const { signal } = closing;
  const pause = () => setTimeout(BEAT_MS, undefined, { signal }).catch(() => {});
  const awaited = new Set<() => void>();

  function report(now: boolean, error?: unknown): void {
    if (works !== now) listener.feeding(now, error);
    works = now;
  }

  function arrived(sentAt: number): void {
    completeUntil = Math.max(completeUntil, sentAt);
    report(true);
    for (const look of awaited) look();
  }

  async function feed(client: postgres.Sql): Promise<void> {
    const began = performance.now();
    const bounded = <T>(work: PromiseLike<T>) => withinDeadline(Promise.resolve(work), LOST_AFTER_MS);
    const [row] = await bounded(client.unsafe("SELECT gen_random_uuid() AS id"));
    const channel = `primer_beat_${row?.id}`;
    await bounded(client.listen(channel, (sentAt) => arrived(Number(sentAt))));
    // Also called after a connection was lost and made again: what was told meanwhile was missed.
    const missed = () => listener.changed(undefined);
    await bounded(client.listen(CHANGE_CHANNEL, (payload) => listener.changed(parseChange(payload)), missed));
    // A beat is worth nothing later, so it need not reach the disk.
    sendBeat = (sentAt) =>
      bounded(
        client.unsafe("SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)", [
          channel,
          String(sentAt),
        ]),
      );
    while (!signal.aborted) {
      await sendBeat(performance.now());
      await pause();
      const silence = performance.now() - Math.max(completeUntil, began);
      if (silence > LOST_AFTER_MS) throw new Error(`PostgreSQL has told nothing for ${Math.round(silence)} ms`);
    }
  }

  async function keepFeeding(): Promise<void> {
    while (!signal.aborted) {
      const client = postgres(url, { ...options, max: 1, idle_timeout: 0, max_lifetime: null, fetch_types: false });
      try {
        await unlessAborted(feed(client), signal);
      } catch (error) {
        if (!signal.aborted) report(false, error);
      } finally {
        sendBeat = undefined;
        await client.end({ timeout: 0 }).catch(() => {});
      }
      await pause();
    }
  }
  const running = keepFeeding();

  async function provenUntil(moment: number): Promise<void> {
    if (!sendBeat) throw new Error("Nothing is heard at the moment");
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => {
      if (completeUntil >= moment) resolve();
    };
    awaited.add(look);
    try {
      await withinDeadline(Promise.all([sendBeat(moment), promise]), SETTLED_WITHIN_MS);
    } finally {
      awaited.delete(look);
    }
  }

  return {
    now: () => performance.now(),
    age: (since) => performance.now() - Math.max(since, completeUntil),
    settled: () => provenUntil(performance.now()).catch(() => listener.changed(undefined)),
    async close() {
      closing.abort();
      await running;
    },
  };
}
