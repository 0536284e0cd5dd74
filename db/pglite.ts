import { chmodSync, constants, existsSync, fsyncSync, renameSync, rmSync, statfsSync, writeSync } from "node:fs";
import { cp } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Extension, PGlite, type PGliteOptions, type Transaction } from "@electric-sql/pglite";
import { NodeFS } from "@electric-sql/pglite/nodefs";
import { drizzle } from "drizzle-orm/pglite";
import { EXIT, failed, OperatorError, textOf } from "../config/errors.ts";
import { inSpan } from "../config/trace.ts";
import dataFile from "./build/pglite-data.zst" with { type: "file" };
import templateFile from "./build/pglite-template.tgz" with { type: "file" };
import trigramFile from "./build/pglite-trgm.tgz" with { type: "file" };
import wasmFile from "./build/pglite-wasm.zst" with { type: "file" };
import {
  CHANGE_CHANNEL,
  type Connection,
  type Database,
  type Orm,
  parseChange,
  type Row,
  type Statement,
} from "./database.ts";
import { syncFolder } from "./files.ts";
import { lockHolder, tryLockFolder } from "./lock.ts";

const DATA_FOLDER = "pgdata";
/** A copy that is read while a backup is taken. */
const SNAPSHOT_FOLDER = "pgdata.snapshot";
/** What a restore builds: under the second name it is whole, and takes the place of the database. */
const UNFINISHED_FOLDER = "pgdata.restoring";
const RESTORED_FOLDER = "pgdata.restored";
const REPLACED_FOLDER = "pgdata.replaced";
/** What an empty database takes. */
const LEAST_ROOM_BYTES = 64 * 1024 * 1024;

/**
 * PGlite's own parameters switch fsync off (-F) and its file system has no fsync at all. Both are put right here:
 * an acknowledged commit is on the disk. The memory settings keep an idle process small.
 */
const START_PARAMETERS = [
  ...PGlite.defaultStartParams.filter((parameter) => parameter !== "-F"),
  ...["fsync=on", "synchronous_commit=on", "full_page_writes=on", "wal_sync_method=fsync"].flatMap(flag),
  ...["shared_buffers=4MB", "wal_buffers=1MB", "max_wal_size=64MB", "temp_buffers=1MB", "work_mem=4MB"].flatMap(flag),
];

function flag(assignment: string): [string, string] {
  return ["-c", assignment];
}

/** initdb is never run, so its module is the smallest one there is. */
const NO_INITDB = new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);

/**
 * pg_trgm, by which users are searched for: where its index is, nothing could be written to their table without it. PGlite
 * does not find a bundle inside the binary, so its files are laid where PostgreSQL looks for them. The library itself is
 * loaded by whoever needs it first.
 */
const TRIGRAMS: Extension = {
  name: "pg_trgm",
  async setup(_pg, emscriptenOpts: PreRunOptions) {
    const files: [path: string, bytes: Uint8Array][] = [];
    for (const [name, file] of await new Bun.Archive(await Bun.file(trigramFile).bytes()).files()) {
      files.push([`/pglite/${name}`, await file.bytes()]);
    }
    const addFiles = ({ FS }: EmscriptenModule) => {
      for (const [path, bytes] of files) {
        FS.mkdirTree(dirname(path));
        FS.writeFile(path, bytes);
      }
    };
    return { emscriptenOpts: { ...emscriptenOpts, preRun: [emscriptenOpts.preRun ?? [], addFiles].flat() } };
  },
};

interface PreRunOptions {
  preRun?: unknown;
}

interface EmscriptenModule {
  FS: { mkdirTree(path: string): void; writeFile(path: string, bytes: Uint8Array): void };
  NODEFS: { stream_ops: { fsync?: (stream: { nfd: number }) => number } };
}

/**
 * Where PostgreSQL cannot go on (no room for its log, a failed fsync) it panics, and PGlite would run the same message
 * again for ever, with the whole process. What was acknowledged is on the disk, so the process says why and ends.
 */
function endOnPanic(isOpen: () => boolean, heard: (lastWords: string) => void) {
  let lastWords = "it was aborted";
  return {
    printErr(line: string) {
      if (!/ (PANIC|FATAL): /.test(line)) return;
      lastWords = line.replace(/^.*? (?=PANIC|FATAL)/, "");
      heard(lastWords);
    },
    onAbort() {
      if (!isOpen()) return; // it throws, and whoever opens it tells
      writeSync(2, `primer: The embedded database gave up: ${lastWords}\n`);
      writeSync(2, "  Nothing acknowledged is lost. See that the disk has room, then start again.\n");
      process.exit(EXIT.failed);
    },
  };
}

/** PGlite's folder on the disk, with an fsync that reaches it. */
class DurableNodeFS extends NodeFS {
  /** The last that PostgreSQL said of why it cannot go on. */
  lastWords: string | undefined;

  override async init(...[pg, options]: Parameters<NodeFS["init"]>): ReturnType<NodeFS["init"]> {
    const { emscriptenOpts } = await super.init(pg, options);
    const addFsync = (module: EmscriptenModule) => {
      module.NODEFS.stream_ops.fsync = (stream) => {
        fsyncSync(stream.nfd);
        return 0;
      };
    };
    const preRun = [emscriptenOpts.preRun ?? []].flat() as ((module: unknown) => void)[];
    const heard = (lastWords: string) => {
      this.lastWords = lastWords;
    };
    const hooks = endOnPanic(() => pg.ready, heard);
    const added = [...preRun, addFsync as (module: unknown) => void];
    return {
      emscriptenOpts: { ...emscriptenOpts, preRun: added, ...hooks } as typeof emscriptenOpts,
    };
  }
}

/** How long queries may follow each other before everything else in the process gets its turn (milliseconds). */
const MAX_BLOCK_MS = 4;

/** PGlite runs in this thread, and waiting queries would follow one another without ever letting the event loop go on. */
class YieldingPglite extends PGlite {
  #lastTurn = 0;
  /** Is told how long each query took (milliseconds). */
  onQuery: (ms: number) => void = () => {};

  override _runExclusiveQuery<T>(work: () => Promise<T>): Promise<T> {
    return super._runExclusiveQuery(async () => {
      if (performance.now() - this.#lastTurn > MAX_BLOCK_MS) {
        await new Promise((resolve) => setImmediate(resolve));
        this.#lastTurn = performance.now();
      }
      const began = performance.now();
      return inSpan("db.query", QUERY_SPAN, work).finally(() => this.onQuery(performance.now() - began));
    });
  }
}

const QUERY_SPAN = { kind: "client", attributes: { "db.system.name": "postgresql" } } as const;

const unpacked = async (file: string) => new Uint8Array(await Bun.zstdDecompress(await Bun.file(file).bytes()));

/** A second database in the process, such as the one that a backup is read from, is there the sooner for it. */
let compiled: Promise<WebAssembly.Module> | undefined;

async function createPglite(fs: PGliteOptions["fs"], loadDataDir?: Blob): Promise<YieldingPglite> {
  compiled ??= unpacked(wasmFile).then(WebAssembly.compile);
  const pglite = new YieldingPglite({
    ...(fs ? { fs } : {}),
    ...(loadDataDir ? { loadDataDir } : {}),
    startParams: START_PARAMETERS,
    pgliteWasmModule: await compiled,
    initdbWasmModule: new WebAssembly.Module(NO_INITDB),
    fsBundle: new Blob([await unpacked(dataFile)]),
    extensions: { pg_trgm: TRIGRAMS },
  });
  await pglite.waitReady;
  return pglite;
}

/** Whether a home has an embedded database. */
export const hasPglite = (home: string): boolean =>
  [DATA_FOLDER, RESTORED_FOLDER].some((name) => existsSync(join(home, name)));

/** Another process owns the embedded database of this home. */
function heldElsewhere(home: string): OperatorError {
  return new OperatorError(
    EXIT.unreachable,
    `The embedded database in ${home} is in use by process ${lockHolder(home) ?? "(unknown)"}.`,
    "One process owns it at a time: stop that one, or use the one that runs. For several, set DATABASE_URL to a PostgreSQL.",
    { reason: "held" },
  );
}

/**
 * Opens the embedded database of a home: takes the folder's lock, unpacks the template at the first start, recovers
 * after a crash.
 *
 * @throws OperatorError exit 3 naming the holder's process id where another process has it, exit 1 where it will not
 * open; it is never replaced by a new one
 */
export async function openPglite(home: string): Promise<Database> {
  const lock = lockOrExplain(home);
  try {
    settleReplacing(home);
    await unpackTemplate(home, DATA_FOLDER);
    return await openFolder(home, DATA_FOLDER, () => lock.release());
  } catch (error) {
    lock.release();
    throw error instanceof OperatorError ? error : doesNotOpen(join(home, DATA_FOLDER), textOf(error), error);
  }
}

async function openFolder(home: string, name: string, released: () => void): Promise<Database> {
  const folder = join(home, name);
  let fs: DurableNodeFS | undefined;
  try {
    // Ours is the lock that counts. PostgreSQL's own, of a process that was killed while it wrote it, would stop us.
    rmSync(join(folder, "postmaster.pid"), { force: true });
    rmSync(join(home, SNAPSHOT_FOLDER), { recursive: true, force: true });
    fs = new DurableNodeFS(folder); // makes the folder where it is missing, so not before
    return wrapPglite(await createPglite(fs), folder, released, join(home, SNAPSHOT_FOLDER));
  } catch (error) {
    throw doesNotOpen(folder, fs?.lastWords ?? textOf(error), error);
  }
}

const doesNotOpen = (folder: string, why: string, error: unknown) =>
  failed(
    `The embedded database in ${folder} does not open: ${why}`,
    "Nothing was changed. See that the disk has room and the folder belongs to this user; else restore a backup.",
    error,
  );

/**
 * Puts another embedded database in the place of the one in this home, if there is one: built beside it, closed, then
 * swapped in. Killed at any moment, the home has either the old one or the new one, whole.
 *
 * @param build fills the new, empty database
 * @param beforeSwap the last that is done while the old one counts
 */
export async function replacePglite(
  home: string,
  build: (database: Database) => Promise<void>,
  beforeSwap: () => void,
): Promise<void> {
  const lock = lockOrExplain(home);
  try {
    settleReplacing(home);
    await unpackTemplate(home, UNFINISHED_FOLDER);
    const database = await openFolder(home, UNFINISHED_FOLDER, () => {});
    await build(database).finally(() => database.close());
    beforeSwap();
    renameSync(join(home, UNFINISHED_FOLDER), join(home, RESTORED_FOLDER));
    syncFolder(home);
    if (existsSync(join(home, DATA_FOLDER))) renameSync(join(home, DATA_FOLDER), join(home, REPLACED_FOLDER));
    settleReplacing(home);
  } finally {
    rmSync(join(home, UNFINISHED_FOLDER), { recursive: true, force: true });
    lock.release();
  }
}

/**
 * A replacement that was cut off is carried out where the old database had made room already, and else forgotten. What
 * is left of it goes.
 */
function settleReplacing(home: string): void {
  if (!existsSync(join(home, DATA_FOLDER)) && existsSync(join(home, RESTORED_FOLDER))) {
    renameSync(join(home, RESTORED_FOLDER), join(home, DATA_FOLDER));
    syncFolder(home);
  }
  for (const name of [UNFINISHED_FOLDER, RESTORED_FOLDER, REPLACED_FOLDER]) {
    rmSync(join(home, name), { recursive: true, force: true });
  }
}

/** A database in memory, for tests; `template` is a dump made by {@link Database.dump}. */
export async function openPgliteInMemory(template?: Blob): Promise<Database> {
  const pglite = await createPglite(undefined, template ?? Bun.file(templateFile));
  return wrapPglite(pglite, "memory", () => {});
}

function lockOrExplain(home: string) {
  let lock: ReturnType<typeof tryLockFolder>;
  try {
    lock = tryLockFolder(home);
  } catch (error) {
    throw failed(
      `${home} cannot be written: ${textOf(error)}`,
      "Choose another home with --dir, or make it yours.",
      error,
    );
  }
  if (!lock) throw heldElsewhere(home);
  return lock;
}

/** Unpacked beside its place and renamed into it, so that a start cut off half-way leaves nothing that looks whole. */
async function unpackTemplate(home: string, name: string): Promise<void> {
  const folder = join(home, name);
  if (existsSync(folder)) return;
  const unfinished = join(home, `${name}.new`);
  rmSync(unfinished, { recursive: true, force: true });
  try {
    await new Bun.Archive(await Bun.file(templateFile).bytes()).extract(unfinished);
    chmodSync(unfinished, 0o700);
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true });
    const { bavail, bsize } = statfsSync(home);
    throw bavail * bsize < LEAST_ROOM_BYTES ? new Error("the disk is full", { cause: error }) : error;
  }
  renameSync(unfinished, folder);
}

/** There is no way to the embedded database that could fail: it is there, or it is closed for good. */
const breakerOf = (pglite: PGlite): Database["breaker"] => ({
  status: () => ({
    state: pglite.closed ? "open" : "closed",
    failureCount: 0,
    failuresSoFar: 0,
    lastFailureAgoMs: null,
    nextAttemptInMs: null,
  }),
  onChange() {},
});

/** Statements without values may be several in one text. */
const statementsOn = (on: Pick<Transaction, "query" | "exec">): Connection => ({
  async query<R extends Row>(statement: string, values: readonly unknown[] = []) {
    if (values.length > 0) return (await on.query<R>(statement, [...values])).rows;
    const results = await on.exec(statement);
    return (results.at(-1)?.rows ?? []) as R[];
  },
});

/**
 * A second database on a copy of the files: they are as a kill at this moment would leave them, which is whole. No query
 * runs while they are copied. Copies share their blocks where the file system can do that.
 */
async function readCopy<T>(
  pglite: PGlite,
  folders: { from: string; to: string },
  work: (reader: Connection) => Promise<T>,
) {
  await pglite.exec("CHECKPOINT");
  try {
    await pglite.runExclusive(() =>
      cp(folders.from, folders.to, { recursive: true, mode: constants.COPYFILE_FICLONE }),
    );
    rmSync(join(folders.to, "postmaster.pid"), { force: true });
    const copy = await createPglite(new NodeFS(folders.to));
    return await work(statementsOn(copy)).finally(() => copy.close());
  } finally {
    rmSync(folders.to, { recursive: true, force: true });
  }
}

/** @param snapshotFolder where a copy may be made; undefined for a database in memory */
function wrapPglite(pglite: YieldingPglite, address: string, released: () => void, snapshotFolder?: string): Database {
  const orm = drizzle(pglite) as unknown as Orm;
  const transaction: Database["transaction"] = (work) =>
    orm.transaction(async (tx) => {
      const last: Statement[] = [];
      const result = await work(tx, (...statements) => last.push(...statements));
      for (const statement of last) await statement;
      return result;
    });
  let closing: Promise<void> | undefined;
  /** Whoever else wants a lock is in this process too, since no other one has the database. */
  const turns = new Map<string, Promise<unknown>>();
  return {
    kind: "pglite",
    address,
    orm,
    replica: orm,
    replicas: [],
    breaker: breakerOf(pglite),
    onQuery(listener) {
      pglite.onQuery = listener;
    },
    transaction,
    change: transaction,
    ...statementsOn(pglite),
    async exclusively(lock, work, { signal } = {}) {
      const before = turns.get(lock) ?? Promise.resolve();
      const query: Database["query"] = async (...statement) => {
        signal?.throwIfAborted();
        return this.query(...statement);
      };
      const turn = before.then(() => work({ query }));
      turns.set(
        lock,
        turn.catch(() => {}),
      );
      return turn;
    },
    snapshot(work) {
      if (snapshotFolder === undefined) return pglite.transaction((tx) => work(statementsOn(tx)));
      const folders = { from: address, to: snapshotFolder };
      return this.exclusively("snapshot", () => readCopy(pglite, folders, work));
    },
    longTransaction: (work) => pglite.transaction((tx) => work(statementsOn(tx))),
    // Everybody who changes anything is in this process and is told while the change commits: no proof is needed.
    watch({ changed }) {
      const listening = pglite.listen(CHANGE_CHANNEL, (payload) => changed(parseChange(payload)));
      return {
        now: () => performance.now(),
        age: () => 0,
        settled: async () => {},
        close: async () => (await listening)().catch(() => {}),
      };
    },
    close() {
      closing ??= pglite.close().finally(released);
      return closing;
    },
    async dump() {
      return pglite.dumpDataDir("none");
    },
  };
}
