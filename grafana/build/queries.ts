import type { LabelsOf, MetricName, NameOf } from "../../config/metrics.ts";

/** What labels have to be: a value, or one of PromQL's operators (`=~`, `!~`, `!=`) and what it is held against. */
type Where<N extends MetricName> = { readonly [L in keyof LabelsOf<N>]?: string };

function selector(scope: string, name: string, where: Readonly<Record<string, string | undefined>>): string {
  const matchers = Object.entries(where).map(([label, value = ""]) => {
    const [, operator = "=", text = value] = /^(=~|!~|!=)(.*)$/.exec(value) ?? [];
    return `${label}${operator}"${text}"`;
  });
  const all = [...(scope === "" ? [] : [scope]), ...matchers].join(",");
  return all === "" ? name : `${name}{${all}}`;
}

/**
 * Writes selectors of metrics that there are, with labels that they have.
 *
 * @param scope a matcher that all of them bear; "" for those of every environment
 */
export const selectors = (scope: string) => ({
  of: <N extends MetricName>(name: N, where: Where<N> = {}) => selector(scope, name, where),
  buckets: <N extends NameOf<"histogram">>(name: N, where: Where<N> = {}) => selector(scope, `${name}_bucket`, where),
  counts: <N extends NameOf<"histogram">>(name: N, where: Where<N> = {}) => selector(scope, `${name}_count`, where),
  sums: <N extends NameOf<"histogram">>(name: N, where: Where<N> = {}) => selector(scope, `${name}_sum`, where),
});

/** What is asked by machines again and again would hide how the rest is, and a stream lasts as long as its reader. */
export const REAL_ROUTES = "!~/livez|/readyz|/metrics|/api/v1/health|/api/v1/revocations/stream";

/**
 * Shares of a machine by series, before processes that see the same machine come together: so it does not matter whether
 * each of them tells of it, or a node is asked.
 */
export const sharesOf = ({ of }: ReturnType<typeof selectors>, window: string) => ({
  cpu: `1 - rate(${of("primer_host_cpu_seconds_total", { state: "idle" })}[${window}]) / ignoring (state) sum without (state) (rate(${of("primer_host_cpu_seconds_total")}[${window}]))`,
  memory: `${of("primer_host_memory_bytes", { state: "used" })} / ignoring (state) ${of("primer_host_memory_bytes", { state: "limit" })}`,
  diskFree: `${of("primer_host_disk_bytes", { state: "free" })} / ignoring (state) ${of("primer_host_disk_bytes", { state: "size" })}`,
});
