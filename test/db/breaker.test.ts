import { describe, expect, test } from "bun:test";
import { BreakerOpenError, type BreakerStatus, createBreaker } from "../../db/breaker.ts";
import { waitFor } from "../drills/processes.ts";

class Away extends Error {}
const failing = async () => {
  throw new Away();
};
const refusing = async () => {
  throw new TypeError("not as asked");
};

function open() {
  const breaker = createBreaker("A dependency", (error) => error instanceof Away);
  const told: boolean[] = [];
  breaker.onChange((isDown) => told.push(isDown));
  const outcome = async (work: () => Promise<unknown>): Promise<unknown> => {
    try {
      return await breaker.run(work);
    } catch (error) {
      return error;
    }
  };
  const state = () => breaker.status().state;
  const failTimes = async (times: number) => {
    for (let count = 0; count < times; count++) await outcome(failing);
  };
  return {
    breaker,
    told,
    outcome,
    state,
    failTimes,
    pauseOver: () => waitFor("a pause", () => state() !== "open", 1200),
  };
}

// Whoever asks a dependency that is away is told so at once, and it is asked again within a second.
describe("a circuit breaker", () => {
  test("five failures in a row open it, and a success in between begins the count anew", async () => {
    const { state, outcome, failTimes, breaker } = open();
    expect(breaker.status()).toEqual({
      state: "closed",
      failureCount: 0,
      failuresSoFar: 0,
      lastFailureAgoMs: null,
      nextAttemptInMs: null,
    });
    await failTimes(4);
    expect([state(), breaker.status().failureCount]).toEqual(["closed", 4]);
    expect(await outcome(async () => "done")).toBe("done");
    expect(breaker.status().failureCount).toBe(0);
    await failTimes(5);
    expect([state(), breaker.status().failureCount]).toEqual(["open", 5]);
  });

  test("what is refused for what was asked is no failure", async () => {
    const { state, outcome, breaker } = open();
    for (let count = 0; count < 10; count++) expect(await outcome(refusing)).toBeInstanceOf(TypeError);
    expect([state(), breaker.status().failureCount]).toEqual(["closed", 0]);
  });

  test("while it is open nothing is begun", async () => {
    const { outcome, failTimes, breaker } = open();
    await failTimes(5);
    let begun = 0;
    const work = async () => ++begun;
    expect(await outcome(work)).toBeInstanceOf(BreakerOpenError);
    expect(() => breaker.assertClosed()).toThrow(BreakerOpenError);
    expect(begun).toBe(0);
    const { nextAttemptInMs, lastFailureAgoMs } = breaker.status();
    expect(nextAttemptInMs).toBeWithin(0, 1000);
    expect(lastFailureAgoMs).toBeWithin(0, 1000);
  });

  // The one that finds out does so alone: whoever else comes meanwhile neither waits for it nor goes along.
  test("after a pause exactly one attempt decides", async () => {
    const { outcome, failTimes, pauseOver, state, told, breaker } = open();
    await failTimes(5);
    const pause = await pauseOver();
    expect(pause).toBeWithin(400, 1100);
    expect(state()).toBe("half_open");
    expect(() => breaker.assertClosed()).toThrow(BreakerOpenError);
    const { promise, resolve } = Promise.withResolvers<string>();
    let begun = 0;
    const work = () => {
      begun++;
      return promise;
    };
    const attempts = Array.from({ length: 20 }, () => outcome(work));
    resolve("back");
    const answers = await Promise.all(attempts);
    expect(answers.filter((answer) => answer === "back")).toHaveLength(1);
    expect(answers.filter((answer) => answer instanceof BreakerOpenError)).toHaveLength(19);
    expect([begun, state()]).toEqual([1, "closed"]);
    expect(told).toEqual([true, false]);
  });

  test("an attempt that fails opens it again, and it is told of once", async () => {
    const { outcome, failTimes, pauseOver, state, told, breaker } = open();
    await failTimes(5);
    await pauseOver();
    expect(await outcome(failing)).toBeInstanceOf(Away);
    expect([state(), breaker.status().failureCount]).toEqual(["open", 6]);
    expect(told).toEqual([true]);
  });

  // It is there, and says so by refusing.
  test("an attempt that is refused for what was asked closes it", async () => {
    const { outcome, failTimes, pauseOver, state } = open();
    await failTimes(5);
    await pauseOver();
    expect(await outcome(refusing)).toBeInstanceOf(TypeError);
    expect(state() satisfies BreakerStatus["state"]).toBe("closed");
  });
});
