import type { Settings } from "../../../config/schema.ts";
import type { Reader } from "../../../db/database.ts";
import { listThreatLists } from "../../../db/queries/threats.ts";
import { idOf, nameOf } from "./known-threats.ts";

/** Networks change hands: an older list is too often wrong (days). */
export const OLD_THREATS_DAYS = 7;

/** How a source of bad networks stands. */
export interface ListCondition {
  readonly name: string;
  /** When it was last read and found good; null where it never was. */
  readonly takenAt: Date | null;
  readonly count: number;
  /** Why the last try to read it came to nothing; null where it did not. */
  readonly problem: string | null;
}

/** Every source that is set, in that order. */
export async function lookAtLists(tx: Reader, { threats }: Settings): Promise<ListCondition[]> {
  const rows = new Map((await listThreatLists(tx)).map((row) => [row.source, row]));
  return threats.sources.map((source) => {
    const row = rows.get(idOf(source));
    const { takenAt = null, count = null, problem = null } = row ?? {};
    return { name: nameOf(source), takenAt, count: count ?? 0, problem };
  });
}

/** When the list was read that was read longest ago. @throws where one never was */
export async function oldestList(tx: Reader, settings: Settings): Promise<Date> {
  const lists = await lookAtLists(tx, settings);
  const times = lists.map(({ name, takenAt, problem }) => {
    if (takenAt) return takenAt.getTime();
    throw new Error(`${name} was never read (${problem ?? "the schedule threat-lists has not run yet"})`);
  });
  return new Date(Math.min(...times));
}
