/** How soon what one node ends is refused by every other one (milliseconds). */
export const WITHIN_MS = 1000;

/** Asks again and again until the answer is the one expected. @returns how long that took (milliseconds) */
export async function untilAnswered(expected: string, ask: () => Promise<string>): Promise<number> {
  const began = performance.now();
  for (;;) {
    const answer = await ask();
    const took = performance.now() - began;
    if (answer === expected) return took;
    if (took > 10 * WITHIN_MS) throw new Error(`After ${Math.round(took)} ms it is still ${answer}`);
    await Bun.sleep(5); // both nodes are in this process: what one hears is heard between the questions
  }
}
