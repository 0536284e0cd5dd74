import { setTimeout } from "node:timers/promises";
import { codeOf } from "../config/errors.ts";
import type { Deps } from "../server/deps.ts";
import { type ChainHead, createSealer, findOverdueSince, SEALING_LOCK } from "../server/features/audit/service.ts";

/** How often the sealer looks for what is new (milliseconds): a row is in the chain well within five seconds. */
const LOOK_MS = 2000;
/** Sealing takes no more than a fifth of the time, however long it takes. */
const REST_SHARE = 4;
/** The longest that one of its statements may take (milliseconds): more than the wait for the lock, which is one too. */
const STATEMENT_MS = 90_000;
/** Longer than any of its pauses (milliseconds): of whom nothing is heard for as long, another one goes on. */
const IDLE_MS = (REST_SHARE + 1) * STATEMENT_MS;
/** How often each process looks whether any of them seals (milliseconds). */
const WATCH_MS = 60_000;
/** How often it is told where the chain ends (milliseconds). */
const TELL_HEAD_MS = 3_600_000;
/** SQLSTATE of a wait for a lock that took too long. */
const LOCK_NOT_AVAILABLE = "55P03";

/**
 * Keeps the audit log chained. Of all the processes that do background work one does this; the others wait for its lock,
 * without asking again and again, and one of them goes on at once where it ends or dies. Where it hangs, they tell of it.
 */
export function keepAuditSealed(
  { db, log, clock }: Pick<Deps, "db" | "log" | "clock">,
  { lookMs = LOOK_MS, watchMs = WATCH_MS } = {},
) {
  const stopping = new AbortController();
  const { signal } = stopping;
  const isStopping = () => signal.aborted;
  let fails = false;
  let toldAt: number | undefined;

  const pause = (ms: number) => setTimeout(ms, undefined, { signal }).catch(() => {}); // the end of it ends that too

  const sealWhileHeld = () =>
    db.exclusively(
      SEALING_LOCK,
      async (connection) => {
        const sealer = createSealer(connection, clock.elapsed);
        while (!isStopping()) {
          const began = performance.now();
          const { more, head } = await sealer.seal();
          report(true);
          tellHead(head);
          const took = performance.now() - began;
          await pause(more ? took : Math.max(lookMs, REST_SHARE * took));
        }
      },
      { statementMs: STATEMENT_MS, idleMs: IDLE_MS, signal },
    );

  /** Into the log of the process, which goes elsewhere: by it a chain that was made anew can be told. */
  function tellHead({ seq, hash }: ChainHead): void {
    if (seq === 0 || (toldAt !== undefined && clock.elapsed() - toldAt < TELL_HEAD_MS)) return;
    toldAt = clock.elapsed();
    log.info("The chain of the audit log goes as far as this", { event: "audit.head", head: `${seq}:${hash}` });
  }

  function report(works: boolean, error?: unknown): void {
    if (fails === !works || isStopping()) return;
    fails = !works;
    if (works) log.info("The audit log is sealed again", { event: "audit.sealed" });
    else log.warn("The audit log cannot be sealed now; nothing of it is lost", { event: "audit.not_sealed", error });
  }

  async function work(): Promise<void> {
    while (!isStopping()) {
      try {
        await sealWhileHeld();
      } catch (error) {
        // Another process has the lock and goes on having it: that is as it should be.
        const isOthers = codeOf((error as Error).cause) === LOCK_NOT_AVAILABLE;
        if (!isOthers) report(false, error);
        await pause(isOthers ? 0 : lookMs);
      }
    }
  }

  /** Whoever has the lock may hang with it, and does not know. What has waited for this process to start is sealed first. */
  async function watch(): Promise<void> {
    for (let isLate = false; !isStopping(); ) {
      await pause(watchMs);
      const since = await findOverdueSince(db, clock.now()).catch(() => undefined); // that it is away is told elsewhere
      if (since === undefined || (since !== null) === isLate || isStopping()) continue;
      isLate = since !== null;
      if (since) log.warn("Nobody seals the audit log", { event: "audit.not_sealed", since: since.toISOString() });
      else log.info("The audit log is sealed again", { event: "audit.sealed" });
    }
  }

  const worked = Promise.all([work(), watch()]);
  return {
    async stop(): Promise<void> {
      stopping.abort();
      await worked;
    },
  };
}
