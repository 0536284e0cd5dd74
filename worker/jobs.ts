import type { Handlers } from "./job.ts";

/** What does the work of each queue, one line each. */
export const HANDLERS: Handlers = {};
