import { Worker } from "node:worker_threads";
import { BulkheadRejectedError, bulkhead, TaskCancelledError, TimeoutStrategy, timeout, wrap } from "cockatiel";
import { isCompiled } from "../../../config/own-program.ts";
import { unavailable } from "../../errors.ts";

export interface StrengthQuestion {
  readonly password: string;
  /** What somebody who knows the account tries first. */
  readonly words: readonly string[];
}

export interface Strength {
  /** Whether everybody tries it first. */
  readonly common: boolean;
  /** From 0 (guessed at once) to 4 (over 10^10 guesses). */
  readonly score: number;
}

/** A question on its way to the thread; the answer comes with the same number. */
export interface Asked {
  readonly id: number;
  readonly question: StrengthQuestion;
}

interface Answered {
  readonly id: number;
  readonly strength: Strength;
}

/** Long enough for the dictionaries to be read on a machine that has much else to do. */
const DEADLINE_MS = 10_000;
const MAX_WAITING = 256;
/** While one is answered, the next one is there already. */
const AT_A_TIME = 2;
/** In the binary it stands by its path in the repository; from the root of what is in it, and not from where somebody stands. */
const THREAD = isCompiled
  ? "/$bunfs/root/server/features/passwords/strength-thread.js"
  : new URL("./strength-thread.ts", import.meta.url);

const policy = wrap(timeout(DEADLINE_MS, TimeoutStrategy.Aggressive), bulkhead(AT_A_TIME, MAX_WAITING));
let thread: ReturnType<typeof startThread> | undefined;

/**
 * How strong a password is. Estimated by a thread of its own, since it takes 2 to 60 milliseconds in which no request would
 * be answered; that starts with the first question, so that only a process that sets passwords has one.
 *
 * @throws AppError SERVICE_UNAVAILABLE where too many wait or the thread does not answer
 */
export async function strengthOf(question: StrengthQuestion): Promise<Strength> {
  try {
    return await policy.execute(() => {
      thread ??= startThread();
      return thread(question);
    });
  } catch (error) {
    if (error instanceof BulkheadRejectedError) throw unavailable("Too many passwords wait to be estimated", error);
    if (error instanceof TaskCancelledError) throw unavailable("A password was not estimated in time", error);
    throw error;
  }
}

function startThread(): (question: StrengthQuestion) => Promise<Strength> {
  const worker = new Worker(THREAD);
  const asked = new Map<number, PromiseWithResolvers<Strength>>();
  let last = 0;
  worker.unref();
  worker.on("message", ({ id, strength }: Answered) => {
    asked.get(id)?.resolve(strength);
    asked.delete(id);
    // Whoever waits for an answer keeps the process alive, and nothing else of the thread does.
    if (asked.size === 0) worker.unref();
  });
  worker.on("error", end);
  worker.on("exit", () => end(new Error("The thread has ended")));
  /** The next question starts another one. */
  function end(cause: Error): void {
    if (thread === ask) thread = undefined;
    void worker.terminate();
    for (const { reject } of asked.values()) reject(unavailable("The thread that estimates passwords failed", cause));
    asked.clear();
  }
  function ask(question: StrengthQuestion): Promise<Strength> {
    const id = ++last;
    const answer = Promise.withResolvers<Strength>();
    asked.set(id, answer);
    worker.ref();
    worker.postMessage({ id, question } satisfies Asked);
    const late = setTimeout(() => end(new Error("The thread does not answer")), DEADLINE_MS);
    return answer.promise.finally(() => clearTimeout(late));
  }
  return ask;
}
