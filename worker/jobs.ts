import type { Deps } from "../server/deps.ts";
import type { Handlers } from "./job.ts";
import { openMail } from "./mail/open-mail.ts";

/** What does the work of each queue, with what it holds open. */
export interface OpenHandlers {
  readonly handlers: Handlers;
  close(): void;
}

/** @param home the folder of this process */
export const openHandlers = (deps: Deps, home: string): OpenHandlers => openMail(deps, home);
