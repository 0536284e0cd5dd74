import type { Connection, Tx } from "../../../db/database.ts";
import { type Erasure, forgetCaller, forgetMoreOf, listErasures } from "../../../db/queries/audit.ts";
import type { Clock } from "../../ports/clock.ts";

/** Rows that are changed in one statement, which on the embedded database everybody waits for: some 50 ms. */
const BATCH = 500;
/** How long whoever asks for an erasure waits for more than the first of them (milliseconds). */
const REST_MS = 2000;
/** Erasures that are looked at in one statement. */
const PAGE = 200;
/** What was under way at an erasure is over long before, and a clean-up that failed has been repeated (milliseconds). */
const LOOK_BACK_MS = 7 * 86_400_000;

/**
 * Takes address and agent from what the log has of a user, in the transaction of their erasure and after the event
 * `user.erased`, which the database asks for. Where there is much of it, not from all: {@link forgetRest}.
 */
export const forgetFirst = (tx: Tx, userId: string) => forgetCaller(tx, userId, BATCH);

/** Goes on once the erasure has committed, for a while. What is left then is the clean-up's, {@link forgetErased}. */
export async function forgetRest(db: Connection, clock: Pick<Clock, "elapsed">, userId: string): Promise<void> {
  const until = clock.elapsed() + REST_MS;
  while ((await forgetMoreOf(db, userId, BATCH)) === BATCH && clock.elapsed() < until);
}

/**
 * Takes address and agent from whatever is left of those who were erased lately: because there was too much of it, because
 * a process died, or because a request of theirs committed later than their erasure.
 *
 * @returns of how many rows
 */
export async function forgetErased(db: Connection, now: Date, signal: AbortSignal): Promise<number> {
  const since = new Date(now.getTime() - LOOK_BACK_MS);
  let rows = 0;
  for (let after: Erasure | undefined; ; ) {
    const erasures = await listErasures(db, { since, limit: PAGE, ...(after ? { after } : {}) });
    for (const { userId } of erasures.filter(({ isLeft }) => isLeft)) {
      for (let forgotten = BATCH; forgotten === BATCH; rows += forgotten) {
        signal.throwIfAborted();
        forgotten = await forgetMoreOf(db, userId, BATCH);
      }
    }
    after = erasures.at(-1);
    if (erasures.length < PAGE) return rows;
  }
}
