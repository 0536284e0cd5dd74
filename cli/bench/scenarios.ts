/** What a bench can do to a server, and what the machine could do at best. */

/** One kind of request. */
export const KINDS = ["login", "refresh", "verify", "introspect", "register"] as const;
export type Kind = (typeof KINDS)[number];

export const SCENARIOS = [...KINDS, "mixed"] as const;
export type Scenario = (typeof SCENARIOS)[number];

/** How many of each kind are sent for each other; the order is even, never at random. */
export type Mix = Readonly<Partial<Record<Kind, number>>>;

/**
 * A day of twenty people at work: each logs in once, refreshes 30 times (eight hours of access tokens of 15 minutes), and
 * makes 600 requests that an application lets primer judge, five of six at a gateway (verify) and one by introspection;
 * and one newcomer registers. Services that check signatures themselves ask nothing, so they are not in it.
 */
const A_DAY: Mix = { register: 1, login: 20, refresh: 600, introspect: 2000, verify: 10_000 };

/** The mix of a scenario, of those kinds that can be sent to this server. */
export function mixOf(scenario: Scenario, possible: readonly Kind[]): Mix {
  if (scenario !== "mixed") return { [scenario]: 1 };
  return Object.fromEntries(Object.entries(A_DAY).filter(([kind]) => possible.includes(kind as Kind)));
}

/** What this machine does a second with nothing around it. */
export interface Ceilings {
  /** Verifications of a password hash, on all cores. */
  readonly hash: number;
  /** Signatures with the signing key's algorithm, on all cores. */
  readonly sign: number;
  /** Answers of a bare Elysia route. */
  readonly get: number;
  /** Answers of a bare Elysia route that parses the form of an introspection. */
  readonly post: number;
}

/** How many requests of a kind a second could be at best: what has to be done one after the other adds up. */
const CEILING_OF: Readonly<Record<Kind, (ceilings: Ceilings) => number>> = {
  login: ({ hash, sign }) => 1 / (1 / hash + 1 / sign),
  refresh: ({ sign }) => sign,
  verify: ({ get }) => get,
  introspect: ({ post }) => post,
  register: ({ hash, sign }) => 1 / (1 / hash + 1 / sign),
};

/** The most requests a second of a mix that this machine could answer. */
export function ceilingOf(mix: Mix, ceilings: Ceilings): number {
  const kinds = Object.entries(mix) as [Kind, number][];
  const total = kinds.reduce((sum, [, weight]) => sum + weight, 0);
  return total / kinds.reduce((seconds, [kind, weight]) => seconds + weight / CEILING_OF[kind](ceilings), 0);
}

/** Answers the kinds of a mix one after the other, each as often as it weighs and as evenly as can be. */
export function sequenceOf(mix: Mix): () => Kind {
  const kinds = (Object.entries(mix) as [Kind, number][]).map(([kind, weight]) => ({ kind, weight, credit: 0 }));
  const total = kinds.reduce((sum, { weight }) => sum + weight, 0);
  const [only] = kinds;
  if (kinds.length === 1 && only) return () => only.kind;
  return () => {
    for (const entry of kinds) entry.credit += entry.weight;
    const next = kinds.reduce((best, entry) => (entry.credit > best.credit ? entry : best));
    next.credit -= total;
    return next.kind;
  };
}
