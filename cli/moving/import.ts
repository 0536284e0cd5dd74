import { unlessAborted } from "../../db/deadline.ts";
import {
  BATCH_SIZE,
  type Draft,
  type ImportOptions,
  type ImportOutcome,
  type RejectCode,
} from "../../server/features/moving/service.ts";
import { entriesOf, type Input } from "./input.ts";
import type { Mover } from "./mover.ts";
import type { Chunks, Found } from "./read.ts";
import type { RejectsFile } from "./rejects.ts";
import type { Source, SourceOptions } from "./source.ts";
import { countLeftOut, countOutcome, type Tally } from "./tally.ts";
import { isFields, RecordFault } from "./values.ts";

export interface ImportRun {
  readonly input: Input;
  readonly source: Source;
  readonly sourceOptions: SourceOptions;
  readonly options: ImportOptions;
  readonly mover: Mover;
  readonly rejects: RejectsFile;
  readonly tally: Tally;
  /** Told after each batch, and when it is to stop, how many bytes were read so far. Throws to stop. */
  progress(bytes: number): void;
  readonly stop: AbortSignal;
}

interface Waiting {
  readonly file: string;
  readonly at: number;
  readonly draft: Draft;
}

/** Reads entries, writes them in batches and counts what became of each. Memory does not grow with what is read. */
export async function importAll(run: ImportRun): Promise<void> {
  const { tally } = run;
  const seen = run.options.dryRun ? createMemory(run.options) : undefined;
  let bytes = 0;
  const counted = async function* (chunks: Chunks) {
    const iterator = chunks[Symbol.asyncIterator]();
    for (;;) {
      // Standard input may keep silent for as long as it likes.
      const next = await unlessAborted(iterator.next(), run.stop);
      if (!next) run.progress(bytes);
      if (!next || next.done) return;
      bytes += next.value.byteLength;
      yield next.value;
    }
  };
  let waiting: Waiting[] = [];
  const flush = async () => {
    const batch = waiting;
    waiting = [];
    if (batch.length > 0) await takeBatch(run, batch, seen);
    run.progress(bytes);
  };
  const draftOf = run.source.reader(run.sourceOptions);
  for (const { name, open } of run.input.files) {
    try {
      for await (const found of entriesOf(counted(open()), run.source)) {
        tally.read++;
        const draft = readEntry(run, draftOf, name, found);
        if (draft) waiting.push({ file: name, at: found.at, draft });
        if (waiting.length >= BATCH_SIZE) await flush();
      }
    } finally {
      // What stood before a damaged place is good.
      await flush();
    }
  }
}

function readEntry(
  run: ImportRun,
  draftOf: ReturnType<Source["reader"]>,
  file: string,
  found: Found,
): Draft | undefined {
  try {
    if ("fault" in found) throw new RecordFault(found.fault);
    if (!isFields(found.value)) throw new RecordFault("The entry is no object");
    const draft = draftOf(found.value);
    if (!("leftOut" in draft)) return draft;
    countLeftOut(run.tally, draft.leftOut);
  } catch (error) {
    if (!(error instanceof RecordFault)) throw error;
    settleOne(run, { file, at: found.at, draft: {} }, { outcome: "rejected", code: "damaged", reason: error.message });
  }
  return undefined;
}

async function takeBatch(run: ImportRun, batch: readonly Waiting[], seen: Memory | undefined): Promise<void> {
  const outcomes = await run.mover.importBatch(
    batch.map(({ draft }) => draft),
    run.options,
  );
  for (const [index, entry] of batch.entries()) {
    const outcome = outcomes[index];
    if (outcome) settleOne(run, entry, seen ? seen.after(outcome) : outcome);
  }
}

/** More would be no name of anybody's. */
const MAX_SHOWN = 254;
const shown = (text: string | undefined) => text?.slice(0, MAX_SHOWN) ?? null;

function settleOne({ tally, rejects }: ImportRun, { file, at, draft }: Waiting, outcome: ImportOutcome): void {
  countOutcome(tally, outcome);
  if (outcome.outcome !== "rejected") return;
  const { code, reason } = outcome;
  rejects.add({ file, at, code, reason, username: shown(draft.username), email: shown(draft.email) });
}

/** What a dry run remembers of users that would be there by now: they are not in the database to be found. */
interface Memory {
  after(outcome: ImportOutcome): ImportOutcome;
}

function createMemory({ rename }: ImportOptions): Memory {
  // A number of 53 bits for each of three things about a user: some 100 MB for a million of them.
  const seen = new Set<number>();
  const key = (text: string) => Number((Bun.hash(text) as bigint) & 0x1f_ffff_ffff_ffffn);
  return {
    after(outcome) {
      if (outcome.outcome !== "imported") return outcome;
      const { username, emailKey } = outcome;
      const [both, email, name] = [key(`b:${emailKey} ${username}`), key(`e:${emailKey}`), key(`u:${username}`)];
      if (seen.has(both)) return { outcome: "existing" };
      if (seen.has(email)) return taken("email_taken", "An earlier user of this export has this e-mail address");
      const isTaken = seen.has(name) && outcome.naming === "kept";
      if (isTaken && !rename) return taken("username_taken", "An earlier user of this export has this user name");
      seen.add(both).add(email).add(name);
      return isTaken ? { ...outcome, naming: "renamed" } : outcome;
    },
  };
}

const taken = (code: RejectCode, reason: string): ImportOutcome => ({ outcome: "rejected", code, reason });
