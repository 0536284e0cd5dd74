import { describe, expect, test } from "bun:test";
import { strengthOf } from "../../../server/features/passwords/strength.ts";

const HARD = "4@8({[<3369&#!1/|0$5+7%2".repeat(42);
const ask = (password: string) => strengthOf({ password, words: [] });

describe("how strong a password is", () => {
  // Whoever sends the worst of passwords keeps nobody else waiting.
  test("is computed beside what else the process does", async () => {
    await ask("begun before");
    let turns = 0;
    let isOver = false;
    const all = Promise.all(Array.from({ length: 25 }, () => ask(HARD))).finally(() => {
      isOver = true;
    });
    while (!isOver) {
      await Bun.sleep(1);
      turns++;
    }
    expect(await all).toHaveLength(25);
    // Where it was computed here, each of them would have held up all others: a turn or two for each.
    expect(turns).toBeGreaterThan(75);
  });

  test("each answer goes to whoever asked for it", async () => {
    const passwords = Array.from({ length: 100 }, (_, index) => (index % 2 === 0 ? `q7vwx9pk${index}xj` : "iloveyou"));
    const found = await Promise.all(passwords.map(ask));
    expect(found.map(({ common }) => common)).toEqual(passwords.map((password) => password === "iloveyou"));
  });

  // One that is more than the thread can do ends the thread, and not what is asked after it.
  test("what the thread fails at is 503, and the next one is answered", async () => {
    const broken = { password: 42 as unknown as string, words: [] };
    const failing = [strengthOf(broken), ask("iloveyou")].map((answer) => answer.catch((error) => error.errorCode));
    expect(await Promise.all(failing)).toEqual(["SERVICE_UNAVAILABLE", "SERVICE_UNAVAILABLE"]);
    expect(await ask("iloveyou")).toEqual({ common: true, score: 0 });
  });

  // A flood is refused at once, and those before it are answered.
  test("beyond what may wait it is 503, to be tried again", async () => {
    const settled = await Promise.allSettled(Array.from({ length: 1000 }, (_, index) => ask(`iloveyou${index % 2}`)));
    const refused = settled.flatMap((one) => (one.status === "rejected" ? [one.reason] : []));
    expect(refused).toHaveLength(1000 - 258);
    expect(new Set(refused.map((error) => error.errorCode))).toEqual(new Set(["SERVICE_UNAVAILABLE"]));
    expect(await ask("iloveyou")).toEqual({ common: true, score: 0 });
  });
});
