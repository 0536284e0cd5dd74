import { expect, test } from "bun:test";
import { createMetrics, type Metrics, readingsOf, resourceOf, sumOf } from "../../config/meter.ts";
import { METRICS } from "../../config/metrics.ts";

const metricsOf = (use: (metrics: Metrics) => void): Metrics => {
  const metrics = createMetrics({ resource: resourceOf("development") });
  use(metrics);
  return metrics;
};

/** As another process tells them: through JSON. */
const told = async (metrics: Metrics) => JSON.parse(JSON.stringify(await metrics.collect()));

const pointsOf = (readings: ReturnType<typeof readingsOf>, name: string) =>
  readings.find((reading) => reading.name === name)?.points;

test("of several processes counts and durations are added, the machine's and the database's amounts are not", async () => {
  const processes = [1, 2].map((nth) =>
    metricsOf((metrics) => {
      for (let count = 0; count < nth; count++) {
        metrics.count("primer_hashes_refused_total", {});
        metrics.record("primer_hash_wait_seconds", nth, { line: "slot" });
      }
      if (nth === 2) metrics.count("primer_mails_total", { outcome: "sent" });
      metrics.observe("process_open_fds", async () => [{ labels: {}, value: 10 * nth }]);
      metrics.observe("primer_sessions", async () => [{ labels: {}, value: 100 }]);
      metrics.observe("process_cpu_seconds_total", async () => [{ labels: {}, value: 3 }]);
    }),
  );
  const readings = readingsOf(sumOf(await Promise.all(processes.map(told))));
  const values = (name: string) => pointsOf(readings, name)?.map(({ labels, value }) => ({ labels, value }));
  expect(values("primer_hashes_refused_total")).toEqual([{ labels: {}, value: 3 }]);
  expect(values("primer_mails_total")).toEqual([{ labels: { outcome: "sent" }, value: 1 }]);
  expect(values("process_open_fds")).toEqual([{ labels: {}, value: 30 }]);
  expect(values("primer_sessions")).toEqual([{ labels: {}, value: 100 }]);
  expect(values("process_cpu_seconds_total")).toEqual([{ labels: {}, value: 6 }]);
  expect(pointsOf(readings, "primer_hash_wait_seconds")).toMatchObject([{ value: 3, sum: 5, max: 2 }]);
});

test("what so many of a hundred took is right to the width of a bucket", async () => {
  const metrics = metricsOf((own) => {
    for (let ms = 1; ms <= 1000; ms++) own.record("primer_token_verification_duration_seconds", ms / 1000, {});
  });
  const [point] = pointsOf(readingsOf(await metrics.collect()), "primer_token_verification_duration_seconds") ?? [];
  expect(point?.value).toBe(1000);
  expect(point?.p50).toBeCloseTo(0.5, 2);
  expect(point?.p95).toBeCloseTo(0.95, 2);
  expect(point?.p99).toBeCloseTo(0.99, 2);
  expect(point?.max).toBe(1);
});

test("nothing is there of what could not be asked", async () => {
  const metrics = metricsOf((own) => {
    own.observe("primer_sessions", () => Promise.reject(new Error("away")));
    own.count("primer_hashes_refused_total", {});
  });
  const readings = readingsOf(await metrics.collect());
  expect(pointsOf(readings, "primer_sessions")).toEqual([]);
  expect(pointsOf(readings, "primer_hashes_refused_total")).toHaveLength(1);
  expect(readings.map(({ name }) => name).sort()).toEqual(Object.keys(METRICS).sort());
});

// A name says what Prometheus expects it to: so it is the same wherever it goes.
test.each(Object.entries(METRICS))(
  "%s has its unit and its kind in its name",
  (name, { kind, unit, sentence, labels }) => {
    expect(name).toMatch(/^[a-z][a-z0-9]*(_[a-z0-9]+)+$/);
    expect(name.endsWith("_total")).toBe(kind === "counter" || kind === "tally");
    const suffix = { s: "_seconds", By: "_bytes", "": "" }[unit];
    expect(suffix).toBeDefined();
    expect(name.replace(/_total$/, "").endsWith(suffix ?? "?")).toBe(true);
    expect(sentence).toMatch(/^[A-Z0-9].*\.$/);
    for (const label of Object.keys(labels)) expect(label).toMatch(/^[a-z]+$/);
  },
);
