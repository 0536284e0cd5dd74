import { createHash } from "node:crypto";
import type { ThreatSource } from "../../../config/kinds.ts";
import {
  deleteOtherThreatLists,
  listThreatLists,
  type ThreatListState,
  upsertThreatList,
} from "../../../db/queries/threats.ts";
import type { Deps } from "../../deps.ts";
import { idOf, nameOf } from "./known-threats.ts";
import { ThreatListError } from "./list-error.ts";
import { parseList } from "./parse-list.ts";
import { ANSWER_MS, readSource } from "./read-source.ts";

type RefreshDeps = Pick<Deps, "db" | "settings" | "clock" | "log"> & Partial<Pick<Deps, "metrics" | "threats">>;

/** After the first failure a source is left alone for this long, and twice as long after each further one. */
const PAUSE_MS = 15 * 60_000;
/** The day is when everything is tried again. */
const LONGEST_PAUSE_MS = 86_400_000;

export interface RefreshOptions {
  readonly home: string;
  readonly signal: AbortSignal;
  /** Whether those that are not due yet are read, too. */
  readonly all?: boolean;
  readonly answerMs?: number;
  readonly maxBytes?: number;
}

/** How a source was dealt with: "waiting" where it is not due yet. */
type Outcome = "taken" | "unchanged" | "refused" | "unreachable" | "waiting";

/**
 * Reads the lists that are due and puts them into the database, where every process finds them. One that cannot be had, is
 * damaged or is not proven changes nothing: the one from before stays.
 *
 * @returns how many of which outcome
 */
export async function refreshLists(deps: RefreshDeps, options: RefreshOptions): Promise<Record<string, number>> {
  const { sources } = deps.settings.threats;
  const known = new Map((await listThreatLists(deps.db.orm)).map((row) => [row.source, row]));
  const outcomes: Record<string, number> = {};
  for (const source of sources) {
    options.signal.throwIfAborted();
    const outcome = await refresh(deps, source, known.get(idOf(source)), options);
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    if (outcome !== "waiting") deps.metrics?.count("primer_threat_refreshes_total", { outcome });
  }
  await deleteOtherThreatLists(deps.db.orm, sources.map(idOf));
  await deps.threats?.reread();
  return outcomes;
}

async function refresh(
  deps: RefreshDeps,
  source: ThreatSource,
  before: ThreatListState | undefined,
  options: RefreshOptions,
): Promise<Outcome> {
  const now = deps.clock.now();
  const { refresh_every, public_key } = deps.settings.threats;
  if (before && before.dueAt > now && !options.all) return "waiting";
  const told = { event: "threats.refreshed", source: nameOf(source) };
  try {
    const bytes = await readSource(source, {
      ...options,
      publicKey: public_key,
      answerMs: options.answerMs ?? ANSWER_MS,
    });
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    const isNew = sha256 !== before?.sha256;
    const parsed = isNew ? await parseList(bytes) : undefined;
    await upsertThreatList(deps.db.orm, {
      source: idOf(source),
      takenAt: now,
      attemptedAt: now,
      failures: 0,
      problem: null,
      dueAt: new Date(now.getTime() + refresh_every),
      ...(parsed ? { sha256, count: parsed.count, networks: await parsed.networks.pack() } : {}),
    });
    const outcome = isNew ? "taken" : "unchanged";
    deps.log.info("A list of bad networks was read", { ...told, outcome, ...(parsed ? { count: parsed.count } : {}) });
    return outcome;
  } catch (error) {
    if (!(error instanceof ThreatListError)) throw error;
    const failures = (before?.failures ?? 0) + 1;
    const pause = Math.min(PAUSE_MS * 2 ** (failures - 1), Math.max(refresh_every, PAUSE_MS), LONGEST_PAUSE_MS);
    await upsertThreatList(deps.db.orm, {
      source: idOf(source),
      attemptedAt: now,
      failures,
      problem: error.message,
      dueAt: new Date(now.getTime() + pause),
    });
    const outcome = ["UNREACHABLE", "DEADLINE", "WRONG_ANSWER"].includes(error.code) ? "unreachable" : "refused";
    const meanwhile = before?.takenAt ? "the one from before stays" : "sign-ins are judged without";
    deps.log.warn(`A list of bad networks is of no use; ${meanwhile}`, { ...told, outcome, failures, error });
    return outcome;
  }
}
