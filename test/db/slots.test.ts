import { describe, expect, test } from "bun:test";
import { DeadlineError } from "../../db/deadline.ts";
import { createSlots } from "../../db/slots.ts";

const LONG_MS = 5000;

// Connections are few: they are given out in turn, nobody waits for one without end, and not too many wait.
describe("slots", () => {
  test("so many at a time, the others in the order in which they came", async () => {
    const slots = createSlots(2);
    const order: number[] = [];
    const worker = async (number: number) => {
      await slots.take(LONG_MS);
      order.push(number);
    };
    const all = [1, 2, 3, 4].map(worker);
    await Promise.all(all.slice(0, 2));
    expect(slots.use()).toEqual({ size: 2, in_use: 2, waiting: 2 });
    slots.release();
    await all[2];
    slots.release();
    await all[3];
    expect(order).toEqual([1, 2, 3, 4]);
    slots.release();
    slots.release();
    expect(slots.use()).toEqual({ size: 2, in_use: 0, waiting: 0 });
  });

  test("whoever has waited long enough leaves the line, and takes no slot later", async () => {
    const slots = createSlots(1);
    await slots.take(LONG_MS);
    expect(slots.take(20)).rejects.toBeInstanceOf(DeadlineError);
    const patient = slots.take(LONG_MS);
    await expect(slots.take(20)).rejects.toBeInstanceOf(DeadlineError);
    expect(slots.use()).toEqual({ size: 1, in_use: 1, waiting: 1 });
    slots.release();
    await patient;
    slots.release();
    expect(slots.use()).toEqual({ size: 1, in_use: 0, waiting: 0 });
  });

  test("too many are not let into the line", async () => {
    const slots = createSlots(1);
    await slots.take(LONG_MS);
    const waiting = Array.from({ length: 50 }, () => slots.take(LONG_MS));
    await expect(slots.take(LONG_MS)).rejects.toBeInstanceOf(DeadlineError);
    for (const one of waiting) {
      slots.release();
      await one;
    }
  });

  // A server that gives no more connections: those that work go on over the ones that are there.
  test("whoever gets nothing for a slot waits for one of the others', before everybody else", async () => {
    const slots = createSlots(3);
    await Promise.all([1, 2, 3].map(() => slots.take(LONG_MS)));
    const order: string[] = [];
    const later = slots.take(LONG_MS).then(() => order.push("later"));
    const again = slots.makeDo(LONG_MS).then((given) => order.push(`again ${given}`));
    expect(slots.use()).toMatchObject({ in_use: 2, waiting: 2 });
    slots.release();
    await again;
    expect(slots.use()).toMatchObject({ in_use: 2, waiting: 1 });
    slots.release();
    await later;
    expect(order).toEqual(["again true", "later"]);
  });

  test("where nobody has one there is nothing to wait for", async () => {
    const slots = createSlots(3);
    await slots.take(LONG_MS);
    expect(await slots.makeDo(LONG_MS)).toBe(false);
    expect(slots.use()).toMatchObject({ in_use: 1, waiting: 0 });
  });

  test("after a second there are as many as before", async () => {
    const slots = createSlots(2);
    await Promise.all([1, 2].map(() => slots.take(LONG_MS)));
    await expect(slots.makeDo(10)).rejects.toBeInstanceOf(DeadlineError);
    slots.release();
    slots.release();
    await slots.take(LONG_MS);
    await expect(slots.take(10)).rejects.toBeInstanceOf(DeadlineError);
    await Bun.sleep(1000);
    await slots.take(10);
    expect(slots.use()).toMatchObject({ in_use: 2, waiting: 0 });
  });
});
