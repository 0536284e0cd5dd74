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
    const all = Promise.all(Array.from({ length: 5 }, () => ask(HARD))).finally(() => {
      isOver = true;
    });
    while (!isOver) {
      await Bun.sleep(1);
      turns++;
    }
    expect(await all).toHaveLength(5);
    // Where it was computed here, each of the five would have held up all turns.
    expect(turns).toBeGreaterThan(20);
  });

  test("each answer goes to whoever asked for it", async () => {
    const passwords = Array.from({ length: 100 }, (_, index) => (index % 2 === 0 ? `q7vwx9pk${index}xj` : "iloveyou"));
    const found = await Promise.all(passwords.map(ask));
    expect(found.map(({ common }) => common)).toEqual(passwords.map((password) => password === "iloveyou"));
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
