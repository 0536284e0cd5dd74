import { getTableName, is, Table } from "drizzle-orm";
import type { Database, Tx } from "../../../db/database.ts";
import type { Deps } from "../../../server/deps.ts";

/** Replaces parts of what services work with, under the running application. @returns how to put them back */
export function replaceDeps(deps: Deps, parts: Partial<Deps>): () => void {
  const before = Object.fromEntries(Object.keys(parts).map((name) => [name, deps[name as keyof Deps]]));
  Object.assign(deps, parts);
  return () => void Object.assign(deps, before);
}

const VERBS = new Set(["select", "insert", "update", "delete", "execute"]);

/** A query runner that writes down each statement it is asked for: its verb, and its table where the verb names one. */
function watched<T extends Tx>(tx: T, steps: string[]): T {
  return new Proxy(tx, {
    get(target, name) {
      const value = Reflect.get(target, name);
      if (typeof value !== "function") return value;
      if (!VERBS.has(String(name))) return value.bind(target);
      return (...parameters: unknown[]) => {
        const [table] = parameters;
        steps.push(is(table, Table) ? `${String(name)} ${getTableName(table)}` : String(name));
        return value.apply(target, parameters);
      };
    },
  });
}

/** Runs some work and answers the steps it took: every statement and every run of a password hash, in order. */
export async function stepsOf(deps: Deps, work: () => Promise<unknown>): Promise<string[]> {
  const steps: string[] = [];
  const { db, hashPool } = deps;
  const counted: Database = {
    ...db,
    orm: watched(db.orm, steps),
    transaction: (inside) => {
      steps.push("begin");
      return db.transaction((tx, withCommit) => inside(watched(tx, steps), withCommit));
    },
    change: (inside) => {
      steps.push("begin");
      return db.change((tx, withCommit) => inside(watched(tx, steps), withCommit));
    },
    query: (statement, values) => {
      steps.push("query");
      return db.query(statement, values);
    },
  };
  const restore = replaceDeps(deps, {
    db: counted,
    hashPool: {
      ...hashPool,
      run(hash) {
        steps.push("hash");
        return hashPool.run(hash);
      },
    },
  });
  try {
    await work();
  } finally {
    restore();
  }
  return steps;
}

/** A database every use of which fails with the error given. */
export function brokenDatabase(db: Database, error: Error): Database {
  const fail = () => {
    throw error;
  };
  const orm = new Proxy(db.orm, { get: () => fail });
  return { ...db, orm, transaction: async () => fail(), change: async () => fail(), query: async () => fail() };
}

/** Lets something happen between the next look at a password and what is made of its outcome. */
export function afterNextHash(deps: Deps, happens: () => Promise<unknown>): void {
  const restore = replaceDeps(deps, {
    hashPool: {
      ...deps.hashPool,
      async run(work) {
        const done = await work();
        restore();
        await happens();
        return done;
      },
    },
  });
}
