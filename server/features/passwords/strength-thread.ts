/** The thread that strength.ts asks: it computes where no request waits for an answer. */
import { parentPort } from "node:worker_threads";
import { loadEstimator } from "./estimate-strength.ts";
import type { Asked } from "./strength.ts";

const estimator = loadEstimator();
parentPort?.on("message", async ({ id, question }: Asked) => {
  parentPort?.postMessage({ id, strength: (await estimator)(question) });
});
