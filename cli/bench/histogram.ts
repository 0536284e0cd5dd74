/**
 * Counts durations in buckets that grow with them, as HdrHistogram does: 128 in each doubling, so a percentile is off by
 * less than 0.8 %, whatever it is. Two of them add up to the histogram of both.
 */

const SUB_BITS = 7;
const SUBS = 1 << SUB_BITS;
/** In microseconds: 35 minutes. Longer counts as this. */
const LONGEST_US = 2 ** 31 - 1;
const BUCKETS = 24 * SUBS + SUBS;

export interface StoredHistogram {
  /** Bucket and count, of those that are not empty. */
  readonly buckets: readonly (readonly [number, number])[];
  readonly sumUs: number;
  readonly maxUs: number;
}

export interface Histogram {
  record(milliseconds: number, times?: number): void;
  add(other: StoredHistogram): void;
  readonly count: number;
  meanMs(): number;
  maxMs(): number;
  /** The duration that this share (0 to 1) of all took at most, in milliseconds; 0 where there are none. */
  percentileMs(share: number): number;
  /** How many took from `fromMs` to under `toMs`, to a bucket's width. */
  countBetween(fromMs: number, toMs: number): number;
  store(): StoredHistogram;
  /**
   * The same with those that were never sent: who waits for an answer sends nothing meanwhile, so a stall of ten intervals
   * hides the ten requests that would have found it. They are put in, each with what was left of the stall
   * ("coordinated omission"; HdrHistogram's copyCorrectedForCoordinatedOmission).
   */
  corrected(expectedIntervalMs: number): Histogram;
}

function bucketOf(us: number): number {
  if (us < 2 * SUBS) return us;
  const shift = 31 - Math.clz32(us) - SUB_BITS;
  return (shift << SUB_BITS) + (us >>> shift);
}

/** Where a bucket begins, in microseconds. */
function startOf(bucket: number): number {
  if (bucket < 2 * SUBS) return bucket;
  const shift = (bucket >> SUB_BITS) - 1;
  return (bucket - (shift << SUB_BITS)) * 2 ** shift;
}

export function createHistogram(from?: StoredHistogram): Histogram {
  const counts = new Float64Array(BUCKETS);
  let [count, sumUs, maxUs] = [0, 0, 0];

  function record(milliseconds: number, times = 1): void {
    const us = Math.min(LONGEST_US, Math.max(0, Math.round(milliseconds * 1000)));
    const bucket = bucketOf(us);
    counts[bucket] = (counts[bucket] ?? 0) + times;
    count += times;
    sumUs += us * times;
    if (us > maxUs) maxUs = us;
  }

  function add(other: StoredHistogram): void {
    for (const [bucket, times] of other.buckets) {
      counts[bucket] = (counts[bucket] ?? 0) + times;
      count += times;
    }
    sumUs += other.sumUs;
    maxUs = Math.max(maxUs, other.maxUs);
  }

  function percentileMs(share: number): number {
    const wanted = Math.max(1, Math.ceil(share * count));
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      seen += counts[bucket] ?? 0;
      if (seen >= wanted) return Math.min(maxUs, (startOf(bucket) + startOf(bucket + 1) - 1) / 2) / 1000;
    }
    return 0;
  }

  function countBetween(fromMs: number, toMs: number): number {
    let found = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const start = startOf(bucket) / 1000;
      if (start >= fromMs && start < toMs) found += counts[bucket] ?? 0;
    }
    return found;
  }

  const store = (): StoredHistogram => ({
    buckets: [...counts].flatMap((times, bucket) => (times > 0 ? [[bucket, times] as const] : [])),
    sumUs,
    maxUs,
  });

  function corrected(expectedIntervalMs: number): Histogram {
    const stored = store();
    const copy = createHistogram(stored);
    if (expectedIntervalMs <= 0) return copy;
    for (const [bucket, times] of stored.buckets) {
      const took = startOf(bucket) / 1000;
      for (let left = took - expectedIntervalMs; left >= expectedIntervalMs; left -= expectedIntervalMs) {
        copy.record(left, times);
      }
    }
    return copy;
  }

  if (from) add(from);
  return {
    record,
    add,
    get count() {
      return count;
    },
    meanMs: () => (count === 0 ? 0 : sumUs / count / 1000),
    maxMs: () => maxUs / 1000,
    percentileMs,
    countBetween,
    store,
    corrected,
  };
}
