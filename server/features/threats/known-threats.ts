import { createHash } from "node:crypto";
import { matchesNetwork, type ThreatSource } from "../../../config/kinds.ts";
import type { Log } from "../../../config/log.ts";
import type { Metrics } from "../../../config/meter.ts";
import type { Settings } from "../../../config/schema.ts";
import type { Database } from "../../../db/database.ts";
import { findNetworks, listThreatLists } from "../../../db/queries/threats.ts";
import { isPrivate, NetworkSet } from "./network-set.ts";

/** How often each process looks whether a list was read anew (milliseconds). */
const LOOK_EVERY_MS = 15_000;

/** Networks that are known for attacks. None is where no list is configured, or none was ever read. */
export interface Threats {
  /** Takes a microsecond or so and never throws. Never true of private addresses, trusted proxies and `threats.except`. */
  isListed(ip: string): boolean;
  /** Takes what other processes have read by now. Never rejects: where the database cannot be asked, all stays as it is. */
  reread(): Promise<void>;
  close(): void;
}

/** By what a list is kept: its URL may have a key in it that nobody should find in the database. */
export const idOf = ({ written }: ThreatSource): string => createHash("sha256").update(written).digest("hex");

/** A source as it may be shown: without what comes after its path. */
export const nameOf = ({ location }: ThreatSource): string => location.replace(/[?#].*$/, "");

interface Parts {
  readonly db: Database;
  /** As they are now. */
  readonly settings: () => Settings;
  readonly log: Log;
  readonly metrics: Metrics;
}

interface Loaded {
  readonly sha256: string | null;
  readonly count: number;
  readonly networks: NetworkSet;
}

/** Keeps the lists in memory as the database has them: what one worker has read counts for every process. */
export function keepThreats({ db, settings, log, metrics }: Parts): Threats {
  const lists = new Map<string, Loaded>();
  let looking: Promise<void> | undefined;
  let exempt: ReturnType<typeof exemptionsOf> | undefined;
  let fails = false;

  async function lookNow(): Promise<void> {
    const sources = settings().threats.sources.map(idOf);
    for (const id of lists.keys()) if (!sources.includes(id)) lists.delete(id);
    if (sources.length === 0) return;
    for (const { source, sha256, count } of await listThreatLists(db.orm)) {
      if (!sources.includes(source) || sha256 === (lists.get(source)?.sha256 ?? null)) continue;
      const packed = await findNetworks(db.orm, source);
      if (packed === undefined) continue;
      lists.set(source, { sha256, count: count ?? 0, networks: await NetworkSet.unpack(packed) });
      log.info("A list of bad networks is in use", { event: "threats.read", source: source.slice(0, 12), count });
    }
  }
  function look(): Promise<void> {
    looking ??= lookNow()
      .then(
        () => {
          fails = false;
        },
        (error) => {
          if (!fails) log.warn("The lists of bad networks cannot be read now", { event: "threats.not_read", error });
          fails = true;
        },
      )
      .finally(() => {
        looking = undefined;
      });
    return looking;
  }
  const timer = setInterval(look, LOOK_EVERY_MS);
  metrics.observe("primer_threat_networks", async () => [
    { value: [...lists.values()].reduce((sum, { count }) => sum + count, 0), labels: {} },
  ]);
  return {
    isListed(ip) {
      if (lists.size === 0 || ![...lists.values()].some(({ networks }) => networks.has(ip))) return false;
      if (exempt?.of !== settings()) exempt = exemptionsOf(settings());
      return !exempt.has(ip);
    },
    // A look that is under way may have passed by what is new.
    reread: async () => (looking ? looking.then(look) : look()),
    close: () => clearInterval(timer),
  };
}

/** Nobody is locked out of their own network or by their own proxy, whatever a list says. */
function exemptionsOf(of: Settings): { readonly of: Settings; readonly has: (ip: string) => boolean } {
  const isSpared = matchesNetwork([...of.server.trusted_proxies, ...of.threats.except]);
  return { of, has: (ip) => isPrivate(ip) || isSpared(ip) };
}
