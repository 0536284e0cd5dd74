import { createHistogram, type Histogram } from "./histogram.ts";
import type { Reply } from "./http-connection.ts";
import type { LoadResult } from "./load.ts";
import { errorName, isSuccess } from "./requests.ts";
import type { Kind } from "./scenarios.ts";

/** Which requests count: those that were to be sent from `from` to before `until`, by `performance.now()`. */
interface Window {
  readonly from: number;
  readonly until: number;
}

/** Counts what became of requests. A kind of undefined is a bare route. */
export function createTally({ from, until }: Window) {
  const latency = createHistogram();
  const lateness = createHistogram();
  const byKind: Partial<Record<Kind, Histogram>> = {};
  const errors: Record<string, number> = {};
  let [completed, requests, waited, failures] = [0, 0, 0, 0];
  const belongs = (dueAt: number) => dueAt >= from && dueAt < until;

  function tookMs(kind: Kind | undefined, ms: number): void {
    latency.record(ms);
    if (kind === undefined) return;
    byKind[kind] ??= createHistogram();
    byKind[kind].record(ms);
  }

  function failed(name: string): void {
    failures++;
    errors[name] = (errors[name] ?? 0) + 1;
  }

  return {
    /** @returns whether it did what it was for */
    replied(kind: Kind | undefined, dueAt: number, reply: Reply): boolean {
      const now = performance.now();
      const success = "status" in reply && isSuccess(kind, reply);
      if (success && now >= from && now < until) completed++;
      if (!belongs(dueAt)) return success;
      requests++;
      if (success || ("failure" in reply && reply.failure === "timeout")) tookMs(kind, now - dueAt);
      if (!success) failed(errorName(reply));
      return success;
    },
    /** It was due and never sent, and has waited until now at least. Left out, it would flatter a server that cannot follow. */
    neverSent(dueAt: number): void {
      if (!belongs(dueAt)) return;
      requests++;
      latency.record(performance.now() - dueAt);
      failed("not sent");
    },
    sentLate(dueAt: number, ms: number): void {
      if (belongs(dueAt)) lateness.record(ms);
    },
    waited(dueAt: number): void {
      if (belongs(dueAt)) waited++;
    },
    now: () => ({
      seconds: Math.max(0, performance.now() - from) / 1000,
      completed,
      errors: failures,
      p99Ms: latency.percentileMs(0.99),
    }),
    result: (cores: number): LoadResult => ({
      seconds: (until - from) / 1000,
      completed,
      requests,
      latency: latency.store(),
      byKind: Object.fromEntries(Object.entries(byKind).map(([kind, histogram]) => [kind, histogram.store()])),
      errors,
      lateness: lateness.store(),
      waited,
      cores,
    }),
  };
}
