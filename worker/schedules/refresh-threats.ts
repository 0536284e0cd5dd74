import { refreshLists } from "../../server/features/threats/service.ts";
import type { Details, ScheduleDeps, ScheduledRun } from "../schedule.ts";

/** Reads the lists of bad networks that are due. One that is of no use is no failure of the run: the others go on. */
export const refreshThreats = (deps: ScheduleDeps, { home, signal }: ScheduledRun): Promise<Details> =>
  refreshLists(deps, { home, signal });
