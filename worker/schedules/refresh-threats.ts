import { refreshLists } from "../../server/features/threats/service.ts";
import type { Details, ScheduleDeps, ScheduledRun } from "../schedule.ts";

/** Reads the lists of bad networks that are due; all of them where somebody asks for it. One that is of no use is no failure of the run: the others go on. */
export const refreshThreats = (deps: ScheduleDeps, { home, signal, isAsked }: ScheduledRun): Promise<Details> =>
  refreshLists(deps, { home, signal, all: isAsked });
