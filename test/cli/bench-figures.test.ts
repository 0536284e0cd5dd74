/** The arithmetic of `primer bench`, against distributions whose figures are known. */
import { describe, expect, test } from "bun:test";
import { type Assertion, assertScenariosRun, judge, parseAssertion } from "../../cli/bench/assertions.ts";
import { type Measurements, OWASP_MINIMUM, recommend, WORKING_SHARE } from "../../cli/bench/calibrate.ts";
import { compareSamples } from "../../cli/bench/compare.ts";
import { createHistogram } from "../../cli/bench/histogram.ts";
import { readAnswer } from "../../cli/bench/http-connection.ts";
import { readSamples, stagesBetween } from "../../cli/bench/prometheus.ts";
import type { ScenarioReport } from "../../cli/bench/report.ts";
import { ceilingOf, KINDS, mixOf, sequenceOf } from "../../cli/bench/scenarios.ts";

/** The same numbers each time: mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Normally distributed, by Box and Muller. */
const normal = (random: () => number) => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

describe("the histogram", () => {
  const within = (actual: number, expected: number) => expect(Math.abs(actual / expected - 1)).toBeLessThan(0.008);

  test("percentiles of values from microseconds to minutes are those of the sorted list, within 0.8 %", () => {
    const random = randomFrom(1);
    const values = Array.from({ length: 50_000 }, () => 10 ** (random() * 8 - 3)).sort((a, b) => a - b);
    const histogram = createHistogram();
    for (const value of values) histogram.record(value);
    for (const share of [0.5, 0.9, 0.99, 0.999, 0.9999]) {
      within(histogram.percentileMs(share), values[Math.ceil(share * values.length) - 1] ?? 0);
    }
    expect(histogram.maxMs()).toBeCloseTo(values.at(-1) ?? 0, 2);
    within(histogram.meanMs(), values.reduce((sum, value) => sum + value, 0) / values.length);
    expect(histogram.countBetween(0, Number.POSITIVE_INFINITY)).toBe(values.length);
  });

  test("two that were stored add up to the one of all", () => {
    const [one, other, all] = [createHistogram(), createHistogram(), createHistogram()];
    for (let value = 1; value <= 1000; value++) {
      (value % 3 === 0 ? one : other).record(value);
      all.record(value);
    }
    const sum = createHistogram(JSON.parse(JSON.stringify(one.store())));
    sum.add(other.store());
    expect(sum.store()).toEqual(all.store());
  });

  test("none has no percentile, and one is its own", () => {
    const histogram = createHistogram();
    expect([histogram.percentileMs(0.99), histogram.meanMs(), histogram.maxMs()]).toEqual([0, 0, 0]);
    histogram.record(12);
    expect(histogram.percentileMs(0.5)).toBeCloseTo(12, 1);
    expect(histogram.percentileMs(1)).toBeCloseTo(12, 1);
  });

  // 9,900 answers of 1 ms and one of 10 s: whoever would have asked in those 10 s waited 5 s on the average.
  test("a stall counts for every request that it kept from being sent", () => {
    const histogram = createHistogram();
    histogram.record(1, 10_000);
    histogram.record(10_000);
    expect(histogram.percentileMs(0.99)).toBeLessThan(2);
    const corrected = histogram.corrected(1);
    expect(corrected.count).toBeGreaterThan(19_900);
    within(corrected.percentileMs(0.75), 5000);
    expect(histogram.count).toBe(10_001);
  });
});

describe("scenarios", () => {
  const ceilings = { hash: 200, sign: 400, get: 100_000, post: 50_000 };

  test("what is done one after the other is as fast as both together", () => {
    expect(ceilingOf({ login: 1 }, ceilings)).toBeCloseTo(1 / (1 / 200 + 1 / 400));
    expect(ceilingOf({ refresh: 1 }, ceilings)).toBe(400);
    expect(ceilingOf({ refresh: 1, verify: 99 }, ceilings)).toBeCloseTo(100 / (1 / 400 + 99 / 100_000));
  });

  test("a mix is sent as often as it weighs, and evenly", () => {
    const next = sequenceOf({ login: 1, refresh: 3, verify: 6 });
    const sent = Array.from({ length: 1000 }, next);
    const count = (kind: string) => sent.filter((entry) => entry === kind).length;
    expect([count("login"), count("refresh"), count("verify")]).toEqual([100, 300, 600]);
    for (let from = 0; from < 1000; from += 10) expect(sent.slice(from, from + 10)).toContain("login");
  });

  test("a mix leaves out what cannot be sent", () => {
    expect(Object.keys(mixOf("mixed", KINDS)).sort()).toEqual([...KINDS].sort());
    expect(Object.keys(mixOf("mixed", ["login", "refresh", "verify"])).sort()).toEqual(["login", "refresh", "verify"]);
    expect(mixOf("register", [])).toEqual({ register: 1 });
  });
});

describe("assertions", () => {
  test.each([
    ["login.p99<200ms", "p99", "<", 200],
    ["verify.p99.9 <= 1.5s", "p99.9", "<=", 1500],
    ["refresh.p50<800us", "p50", "<", 0.8],
    ["mixed.errors<=0.1%", "errors", "<=", 0.1],
    ["login.throughput>=50/s", "throughput", ">=", 50],
    ["login.throughput>50", "throughput", ">", 50],
    ["register.share>80%", "share", ">", 80],
    ["verify.memory<0.5GiB", "memory", "<", 512],
  ] as const)("%s", (text, metric, operator, value) => {
    expect(parseAssertion(text)).toMatchObject({ metric, operator, value });
  });

  // A rule that is not understood never counts as one that holds.
  test.each([
    "login",
    "login.p99",
    "login.p99<200",
    "login.p99=200ms",
    "login.p99<ms",
    "login.p98<200ms",
    "logout.p99<200ms",
    "login.errors<1",
    "login.p99<200%",
    "login.throughput>50ms",
    "login.toString<1ms",
    "",
  ])("%j is refused with exit 2", (text) => {
    expect(() => parseAssertion(text)).toThrow(expect.objectContaining({ exitCode: 2 }));
  });

  const scenario = {
    scenario: "login",
    requests: 600,
    throughput: 60,
    latency_ms: { mean: 100, p50: 90, p90: 150, p99: 199.9, "p99.9": 260, max: 300 },
    error_share: 0.002,
    share_of_ceiling: null,
    server: { cpu_seconds_per_operation: 0.012, peak_memory_mib: 150, stages: null },
  } as unknown as ScenarioReport;
  const heldIn = (text: string, of: ScenarioReport) => judge([parseAssertion(text)], { scenarios: [of] })[0]?.held;
  const held = (text: string) => heldIn(text, scenario);

  test("they hold or do not, to the unit", () => {
    expect(held("login.p99<200ms")).toBe(true);
    expect(held("login.p99<199ms")).toBe(false);
    expect(held("login.max<=0.3s")).toBe(true);
    expect(held("login.errors<0.2%")).toBe(false);
    expect(held("login.errors<=0.2%")).toBe(true);
    expect(held("login.cpu<12.1ms")).toBe(true);
    expect(held("login.memory>150MiB")).toBe(false);
  });

  // A server that answered nothing in time was not quick.
  test.each(["login.p99<200ms", "login.max<1s", "login.errors<=0%", "login.throughput>1/s"])(
    "of no request %s does not hold",
    (text) => {
      const latency_ms = { mean: 0, p50: 0, p90: 0, p99: 0, "p99.9": 0, max: 0 };
      expect(heldIn(text, { ...scenario, requests: 0, throughput: 0, latency_ms, error_share: 0 })).toBe(false);
    },
  );

  test("what could not be measured does not hold, and what is not run is refused", () => {
    expect(held("login.share>1%")).toBe(false);
    expect(held("login.share<99%")).toBe(false);
    const stray: Assertion[] = [parseAssertion("verify.p99<1s")];
    expect(() => assertScenariosRun(stray, ["login"])).toThrow(expect.objectContaining({ exitCode: 2 }));
  });
});

describe("the comparison", () => {
  const NOISE = 0.03;
  const LEAST = 0.05;
  /** Verdicts on pairs of runs of so many rounds, the second `ratio` times as fast. */
  function verdicts(ratio: number, rounds: number, trials = 400): Record<string, number> {
    const random = randomFrom(rounds * 1000 + Math.round(ratio * 100));
    const sample = (mean: number) => Array.from({ length: rounds }, () => mean * (1 + NOISE * normal(random)));
    const found: Record<string, number> = { faster: 0, slower: 0, "no difference": 0 };
    for (let trial = 0; trial < trials; trial++) {
      const { verdict } = compareSamples(sample(100), sample(100 * ratio), LEAST);
      found[verdict] = (found[verdict] ?? 0) + 1 / trials;
    }
    return found;
  }

  // Noise alone never fails a pipeline: with rounds that scatter by 3 %, at most once in a hundred runs.
  test.each([5, 10])("of two runs of %d rounds that differ by chance alone says nothing", (rounds) => {
    const { faster = 1, slower = 1 } = verdicts(1, rounds);
    expect(faster).toBeLessThan(0.01);
    expect(slower).toBeLessThan(0.01);
  });

  // A commit that makes it 10 % slower is caught.
  test.each([5, 10])("of %d rounds finds what is 10 percent slower, and 10 percent faster", (rounds) => {
    expect(verdicts(0.9, rounds).slower).toBeGreaterThan(0.9);
    expect(verdicts(1.1, rounds).faster).toBeGreaterThan(0.8);
    expect(verdicts(0.9, rounds).faster).toBe(0);
  });

  test("a difference that is certain and too small to matter is none", () => {
    const before = [100, 100.1, 100.2, 100.3, 100.4];
    const found = compareSamples(
      before,
      before.map((value) => value * 0.98),
      LEAST,
    );
    expect(found).toMatchObject({ verdict: "no difference" });
    expect(found.p).toBeLessThan(0.01);
  });

  test("the spread holds the true ratio 98 times in 100, and the ratio lies in it", () => {
    const random = randomFrom(7);
    const sample = (mean: number) => Array.from({ length: 8 }, () => mean * (1 + NOISE * normal(random)));
    let holds = 0;
    for (let trial = 0; trial < 500; trial++) {
      const { low, high, ratio } = compareSamples(sample(100), sample(120), LEAST);
      expect(low).toBeLessThanOrEqual(ratio);
      expect(high).toBeGreaterThanOrEqual(ratio);
      if (low <= 1.2 && 1.2 <= high) holds++;
    }
    expect(holds / 500).toBeGreaterThan(0.96);
  });

  // Table of Mann and Whitney (1947): of 5 against 5, U = 0 comes once in 252 orders.
  test("the probabilities are those of the table", () => {
    expect(compareSamples([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], 0.01).p).toBeCloseTo(2 / 252, 10);
    expect(compareSamples([1, 2, 3, 4, 6], [5, 7, 8, 9, 10], 0.01).p).toBeCloseTo(4 / 252, 10);
    expect(compareSamples([3, 3, 3], [3, 3, 3], 0.01).p).toBe(1);
    expect(compareSamples([1, 2, 3], [4, 5, 6], 0.01).p).toBeCloseTo(2 / 20, 10);
  });
});

describe("reading answers", () => {
  const answer = (text: string, ended = false) => readAnswer(Buffer.from(text, "latin1"), ended);

  test.each([
    ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", { status: 200, text: "hello", closes: false }],
    ["HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", { status: 204, text: "", closes: true }],
    [
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n",
      { status: 200, text: "hello!", closes: false },
    ],
    [
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}",
      { status: 401, text: "{}", closes: false },
    ],
  ])("%j, and nothing before its last byte", (text, expected) => {
    const found = answer(text);
    expect({ status: found?.status, text: found?.body.toString(), closes: found?.closes }).toEqual(expected);
    for (let length = 0; length < text.length; length++) expect(answer(text.slice(0, length))).toBeUndefined();
  });

  test("a body without a length ends with the connection", () => {
    const text = "HTTP/1.1 200 OK\r\n\r\nhello";
    expect(answer(text)).toBeUndefined();
    expect(answer(text, true)).toMatchObject({ status: 200, closes: true });
  });
});

describe("metrics of a server", () => {
  const text = (scale: number) => `# HELP primer_request_stage_duration_seconds How long
# TYPE primer_request_stage_duration_seconds histogram
primer_request_stage_duration_seconds_bucket{stage="sign",le="0.01"} ${10 * scale}
primer_request_stage_duration_seconds_bucket{stage="sign",le="+Inf"} ${10 * scale}
primer_request_stage_duration_seconds_sum{stage="sign"} ${0.05 * scale}
primer_request_stage_duration_seconds_count{stage="sign"} ${10 * scale}
primer_request_stage_duration_seconds_bucket{le="0.01",stage="hash"} ${0}
primer_request_stage_duration_seconds_bucket{le="0.025",stage="hash"} ${9 * scale}
primer_request_stage_duration_seconds_bucket{le="+Inf",stage="hash"} ${10 * scale}
primer_request_stage_duration_seconds_sum{stage="hash"} ${0.2 * scale}
primer_request_stage_duration_seconds_count{stage="hash"} ${10 * scale}
primer_request_stage_duration_seconds_count{stage="write"} 3
other{a="x\\"y,z=\\"1"} 4 1700000000
`;

  test("stages are what came between two readings, in the order of a request", () => {
    const stages = stagesBetween(readSamples(text(1)), readSamples(text(3)));
    expect(stages).toEqual([
      { stage: "hash", count: 20, meanMs: expect.closeTo(20, 6), p50Ms: 25, p99Ms: null },
      { stage: "sign", count: 20, meanMs: expect.closeTo(5, 6), p50Ms: 10, p99Ms: 10 },
    ]);
    expect(stagesBetween([], readSamples("nothing of ours 1\n"))).toEqual([]);
  });

  test("labels are read with what is escaped in them", () => {
    expect(readSamples(text(1)).at(-1)).toEqual({ name: "other", labels: { a: 'x"y,z="1' }, value: 4 });
  });
});

describe("the recommendation", () => {
  const found: Measurements = {
    cores: 4,
    memoryMiB: 16_384,
    signPerSecond: 800,
    steps: [
      { ...OWASP_MINIMUM, takesMs: 20, perSecond: 200 },
      { memory_kib: 65_536, iterations: 2, takesMs: 90, perSecond: 45 },
      { memory_kib: 131_072, iterations: 3, takesMs: 300, perSecond: 12 },
    ],
  };

  test("is the strongest that is quick enough and leaves room for the wanted rate", () => {
    expect(recommend(found, { hashMs: 250, loginsPerSecond: null })).toMatchObject({
      memory_kib: 65_536,
      machines: null,
    });
    expect(recommend(found, { hashMs: 1000, loginsPerSecond: 5 })).toMatchObject({ memory_kib: 131_072, machines: 1 });
    expect(recommend(found, { hashMs: 1000, loginsPerSecond: 20 })).toMatchObject({ memory_kib: 65_536, machines: 1 });
  });

  // Nothing weaker than OWASP's minimum is ever recommended, whatever rate or time is wanted.
  test("never goes below OWASP's minimum: it takes more machines instead", () => {
    for (const hashMs of [1, 250]) {
      const found1000 = recommend(found, { hashMs, loginsPerSecond: 1000 });
      expect(found1000).toMatchObject(OWASP_MINIMUM);
      expect(found1000.machines).toBe(Math.ceil(1000 / ((1 / (1 / 200 + 1 / 800)) * WORKING_SHARE)));
    }
  });

  test("never has hashes take the machine's memory, nor more of them at a time than there are cores", () => {
    const small = recommend({ ...found, memoryMiB: 512 }, { hashMs: 1000, loginsPerSecond: null });
    expect(small).toMatchObject(OWASP_MINIMUM);
    expect(small.hashSlots * small.workers).toBeLessThanOrEqual(found.cores);
  });
});
