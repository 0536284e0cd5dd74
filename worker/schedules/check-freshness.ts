import { stat } from "node:fs/promises";
import { join } from "node:path";
import { textOf } from "../../config/errors.ts";
import { readFilterFacts } from "../../server/features/passwords/breach-filter.ts";
import { BREACH_FILTER_FILE } from "../../server/features/passwords/service.ts";
import { OLD_THREATS_DAYS, oldestList } from "../../server/features/threats/service.ts";
import { OLD_GEOIP_DAYS, readGeoFile } from "../../server/ports/geo-file.ts";
import { type Alert, alertOperators } from "../alert-operators.ts";
import type { Details, ScheduleDeps, ScheduledRun } from "../schedule.ts";

const DAY_MS = 86_400_000;
const OLD_BREACHED_DAYS = 180;

/** What is only good while it is fresh. */
interface Watched {
  readonly kind: "breached_passwords" | "geoip" | "threats";
  readonly name: string;
  readonly oldDays: number;
  readonly mend: string;
  /** Whether it is used. */
  isUsed(settings: ScheduleDeps["settings"]): boolean;
  /** When it was made. @throws where it is of no use */
  madeAt(deps: ScheduleDeps, home: string): Promise<Date>;
}

const WATCHED: readonly Watched[] = [
  {
    kind: "breached_passwords",
    name: "The list of breached passwords",
    oldDays: OLD_BREACHED_DAYS,
    mend: "Download the list and run “primer hibp import FILE|DIR”.",
    isUsed: ({ password }) => password.hibp === "offline",
    async madeAt(_deps, home) {
      const path = join(home, BREACH_FILTER_FILE);
      if (!(await readFilterFacts(path))) throw new Error("it is not there");
      return (await stat(path)).mtime;
    },
  },
  {
    kind: "geoip",
    name: "The GeoIP file",
    oldDays: OLD_GEOIP_DAYS,
    mend: "Get a newer one, such as with MaxMind's geoipupdate; it is taken at once.",
    isUsed: ({ accounts }) => accounts.geoip_file !== "",
    madeAt: async ({ settings }, home) => (await readGeoFile(settings.accounts.geoip_file, home)).built,
  },
  {
    kind: "threats",
    name: "A list of bad networks",
    oldDays: OLD_THREATS_DAYS,
    mend: "See what “primer doctor” says of threats.sources.",
    isUsed: ({ threats }) => threats.sources.length > 0,
    madeAt: ({ db, settings }) => oldestList(db.orm, settings),
  },
];

type Condition = "unused" | "good" | "old" | "unusable";

interface Found {
  readonly condition: Condition;
  /** In words, for an alert. */
  readonly why: string;
}

/** Looks at the files of this process's home, and at lists. What has turned bad since the last look is mailed, once. */
export async function checkFreshness(deps: ScheduleDeps, run: ScheduledRun): Promise<Details | undefined> {
  const details: Record<string, Condition> = {};
  const alerts: Alert[] = [];
  for (const watched of WATCHED) {
    const { kind, name, mend } = watched;
    const { condition, why } = await lookAt(deps, watched, run.home);
    details[kind] = condition;
    if (condition === (run.last?.[kind] ?? "unused")) continue;
    const isBad = condition === "old" || condition === "unusable";
    deps.log[isBad ? "warn" : "info"](`${name}: ${why}`, { event: "freshness.changed", kind, condition });
    if (isBad) alerts.push({ kind, what: `${name} ${condition === "old" ? "is old" : "is of no use"}`, why, mend });
  }
  await deps.db.transaction(async (tx) => {
    for (const alert of alerts) await alertOperators(tx, deps, alert);
    await run.finish(tx, details);
  });
  return undefined;
}

async function lookAt(deps: ScheduleDeps, watched: Watched, home: string): Promise<Found> {
  const { settings, clock } = deps;
  if (!watched.isUsed(settings)) return { condition: "unused", why: "it is not used" };
  try {
    const age = clock.now().getTime() - (await watched.madeAt(deps, home)).getTime();
    const days = Math.floor(age / DAY_MS);
    const condition = age > watched.oldDays * DAY_MS ? "old" : "good";
    return { condition, why: `It is ${days} days old; more than ${watched.oldDays} are too many.` };
  } catch (error) {
    return { condition: "unusable", why: `It cannot be used: ${textOf(error)}.` };
  }
}
