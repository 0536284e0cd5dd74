import { SignJWT } from "jose";
import type { Change } from "../../../db/database.ts";
import { findNotBefore } from "../../../db/queries/installation.ts";
import { listRevokedSince } from "../../../db/queries/sessions.ts";
import type { Deps } from "../../deps.ts";
import { etagOf } from "../../etag.ts";

/** So that no list passes for an access token, nor an access token for a list. */
const TYPE = "revocations+jwt";
/** What was read longer ago is read again without proof that nothing changed; what was signed longer ago, signed again. */
const MAX_AGE_MS = 1000;
/**
 * How much longer than its tokens live a session stays listed: a refresh under way while it ended may have signed a
 * token a little later, on a node whose clock is ahead.
 */
const SIGNED_LATE_MS = 30_000;
/** A revocation bears the time at which it was asked for and is seen once committed; clocks differ by seconds as well. */
const SEEN_LATE_MS = 15_000;

type ListDeps = Pick<Deps, "db" | "changes" | "clock" | "keys" | "settings">;

/** Session ids, and until when (seconds since 1970) an access token of that session could still be valid. */
type Ended = Map<string, number>;

/** The whole list, signed. */
export interface RevocationSnapshot {
  /** A JWT with `iss`, `iat`, `complete`, `not_before` after a restore, and `revoked`: session ids, each with the second at which it may be forgotten. */
  readonly jwt: string;
  /** Made from what is listed and the key that signed, so that every node answers the same. */
  readonly etag: string;
}

interface Signed extends RevocationSnapshot {
  readonly askedAt: number;
  readonly version: number;
}

/** The sessions that ended while an access token of theirs may still be valid, as the table says. */
export interface RevocationList {
  /**
   * The list, at most two seconds old. However many ask, it is read and signed at most once a second.
   *
   * @throws what the database throws: an old list is never passed off as the present one
   */
  snapshot(): Promise<RevocationSnapshot>;
  /** Reads what was revoked since, unless there is proof that nothing was. @throws what the database throws */
  refresh(): Promise<void>;
  /** What was found since this was last asked, signed by itself; undefined where there is nothing. */
  takeNews(): Promise<string | undefined>;
  /** Nobody needs to be told of what was found until now. */
  skipNews(): void;
  /** Everything that was found until now, signed no longer than a second ago. */
  complete(): Promise<RevocationSnapshot>;
  /** Something has changed; undefined is anything. */
  changed(change: Change | undefined): void;
}

export function createRevocationList(deps: () => ListDeps): RevocationList {
  const ended: Ended = new Map();
  let news: Ended = new Map();
  /** Grows with each session found. */
  let version = 0;
  /** Settings may have been changed while tokens with the longer life are about. */
  let longestLife = 0;
  let changedSince = true;
  /** Changes only while no process runs: in a restore. */
  let notBefore: Promise<Date | undefined> | undefined;
  let readAt: { proof: number; time: Date } | undefined;
  let reading: Promise<void> | undefined;
  let signed: Signed | undefined;
  let making: Promise<Signed> | undefined;

  async function read(): Promise<void> {
    const { db, changes, clock, settings } = deps();
    const asked = { proof: changes.now(), time: clock.now() };
    longestLife = Math.max(longestLife, settings.tokens.access_ttl + settings.tokens.clock_skew + SIGNED_LATE_MS);
    const oldest = asked.time.getTime() - longestLife;
    const overlap = SEEN_LATE_MS + settings.database.statement_timeout;
    const since = readAt ? Math.max(oldest, readAt.time.getTime() - overlap) : oldest;
    changedSince = false;
    try {
      for (const { id, revokedAt } of await listRevokedSince(db.orm, new Date(since))) {
        if (ended.has(id)) continue;
        const until = Math.ceil((revokedAt.getTime() + longestLife) / 1000);
        ended.set(id, until);
        news.set(id, until);
        version++;
      }
    } catch (error) {
      changedSince = true;
      throw error;
    }
    readAt = asked;
    for (const entries of [ended, news])
      for (const [id, until] of entries) if (until * 1000 <= asked.time.getTime()) entries.delete(id);
  }

  async function refresh(): Promise<void> {
    const isProven = readAt !== undefined && deps().changes.age(readAt.proof) <= MAX_AGE_MS;
    if (!reading && isProven && !changedSince) return;
    reading ??= read().finally(() => {
      reading = undefined;
    });
    await reading;
  }

  async function make(): Promise<Signed> {
    const askedAt = deps().clock.elapsed();
    await refresh();
    return sign(askedAt);
  }

  async function sign(askedAt: number): Promise<Signed> {
    const { keys, clock } = deps();
    const now = clock.now().getTime();
    const since = await readNotBefore();
    const listed = [...ended].filter(([, until]) => until * 1000 > now).sort(([a], [b]) => (a < b ? -1 : 1));
    const made = { askedAt, version, etag: etagOf(JSON.stringify([keys.signing().kid, listed, since])) };
    const jwt = await signList(deps(), Object.fromEntries(listed), true, since);
    signed = { ...made, jwt };
    return signed;
  }

  async function readNotBefore(): Promise<Date | undefined> {
    notBefore ??= findNotBefore(deps().db.orm);
    return notBefore.catch((error) => {
      notBefore = undefined;
      throw error;
    });
  }

  const recent = () => (signed && deps().clock.elapsed() - signed.askedAt < MAX_AGE_MS ? signed : undefined);

  return {
    refresh,
    async snapshot() {
      const known = recent();
      if (known) return known;
      making ??= make().finally(() => {
        making = undefined;
      });
      return making;
    },
    async takeNews() {
      if (news.size === 0) return undefined;
      const taken = news;
      news = new Map();
      try {
        return await signList(deps(), Object.fromEntries(taken), false, await readNotBefore());
      } catch (error) {
        news = new Map([...taken, ...news]);
        throw error;
      }
    },
    skipNews() {
      news = new Map();
    },
    async complete() {
      const known = recent();
      return known?.version === version ? known : sign(deps().clock.elapsed());
    },
    changed(change) {
      if (change === undefined || change.kind === "session") changedSince = true;
    },
  };
}

/**
 * It has no `exp`: what is listed stays true, and a copy that a cache has proven by its ETag may be old. Who wants it
 * fresh looks at `iat`.
 */
function signList(
  deps: ListDeps,
  revoked: Readonly<Record<string, number>>,
  complete: boolean,
  notBefore: Date | undefined,
): Promise<string> {
  const key = deps.keys.signing();
  const since = notBefore ? { not_before: Math.ceil(notBefore.getTime() / 1000) } : {};
  return new SignJWT({ complete, revoked, ...since })
    .setProtectedHeader({ alg: key.algorithm, kid: key.kid, typ: TYPE })
    .setIssuer(deps.settings.tokens.issuer)
    .setIssuedAt(Math.floor(deps.clock.now().getTime() / 1000))
    .sign(key.privateKey);
}
