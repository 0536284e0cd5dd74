/** Reads the text in which Prometheus is told of metrics (exposition format 0.0.4), as far as a bench needs it. */

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** The samples of a text; comments and lines that are none are left out. */
export function readSamples(text: string): Sample[] {
  return text.split("\n").flatMap((line) => {
    const [, name, labels = "", value] = LINE.exec(line) ?? [];
    if (name === undefined || value === undefined) return [];
    const pairs = [...labels.matchAll(LABEL)].map(([, key = "", text = ""]) => [key, text.replace(/\\(.)/g, "$1")]);
    return [{ name, labels: Object.fromEntries(pairs), value: Number(value.replace("Inf", "Infinity")) }];
  });
}

/** How long one stage of requests took since the metrics were read before. */
export interface Stage {
  readonly stage: string;
  readonly count: number;
  readonly meanMs: number;
  /** The end of the bucket that half, and 99 of 100, were in or below; null past the last one. */
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
}

const STAGES = "primer_request_stage_duration_seconds";
/** In the order in which a request goes through them. */
const ORDER = ["parse", "limit", "query", "hash", "sign", "write"];

/** What each stage took between two readings; none where the server tells of none. */
export function stagesBetween(before: readonly Sample[], after: readonly Sample[]): Stage[] {
  const stages = [
    ...new Set(after.filter(({ name }) => name === `${STAGES}_count`).map(({ labels }) => labels.stage ?? "")),
  ];
  const rank = (stage: string) => (ORDER.indexOf(stage) + ORDER.length + 1) % (ORDER.length + 1);
  return stages
    .sort((a, b) => rank(a) - rank(b))
    .map((stage) => stageBetween(stage, before, after))
    .filter(({ count }) => count > 0);
}

function stageBetween(stage: string, before: readonly Sample[], after: readonly Sample[]): Stage {
  const of = (samples: readonly Sample[], name: string, le?: string) =>
    samples
      .filter(
        (sample) =>
          sample.name === name && sample.labels.stage === stage && (le === undefined || sample.labels.le === le),
      )
      .reduce((sum, { value }) => sum + value, 0);
  const grown = (name: string, le?: string) => of(after, name, le) - of(before, name, le);
  const count = grown(`${STAGES}_count`);
  const ends = [
    ...new Set(after.filter(({ name }) => name === `${STAGES}_bucket`).map(({ labels }) => labels.le ?? "")),
  ];
  const buckets = ends
    .map((le) => ({ end: Number(le.replace("+Inf", "Infinity")), count: grown(`${STAGES}_bucket`, le) }))
    .sort((a, b) => a.end - b.end);
  const upTo = (share: number) => {
    const end = buckets.find((bucket) => bucket.count >= share * count)?.end ?? Number.POSITIVE_INFINITY;
    return Number.isFinite(end) ? end * 1000 : null;
  };
  const meanMs = count === 0 ? 0 : (grown(`${STAGES}_sum`) / count) * 1000;
  return { stage, count, meanMs, p50Ms: upTo(0.5), p99Ms: upTo(0.99) };
}

/** Every sample of this name together; undefined where there is none. */
export function totalOf(samples: readonly Sample[], name: string): number | undefined {
  const found = samples.filter((sample) => sample.name === name);
  return found.length === 0 ? undefined : found.reduce((sum, { value }) => sum + value, 0);
}
