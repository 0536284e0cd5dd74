import { type HttpConnection, httpConnection } from "./http-connection.ts";
import type { CleanedUp, Load, LoadEvent, LoadResult } from "./load.ts";
import {
  type Account,
  accountAt,
  type Destination,
  errorName,
  exchange,
  newAccount,
  requestsTo,
  type Session,
  sessionOf,
  type Tokens,
} from "./requests.ts";
import { type Kind, sequenceOf } from "./scenarios.ts";
import { takeBack } from "./take-back.ts";
import { createTally } from "./tally.ts";

/** How often it tells how it goes, and looks for requests that wait too long (milliseconds). */
const TELL_EVERY_MS = 250;
const EXPIRE_EVERY_MS = 50;
/** An access token that ends within this time is renewed first; that request does not count (milliseconds). */
const RENEW_BEFORE_MS = 15_000;
/** How long a request that is not measured may take (milliseconds). */
const SET_UP_TIMEOUT_MS = 30_000;
/** In a closed loop: nobody who was refused asks again at once, and what would come of it is a flood of refusals. */
const PAUSE_AFTER_REFUSAL_MS = 100;
/** Logins at the same time while connections get their sessions: a queue of hashes is not what is to be measured then. */
const LOGINS_AT_A_TIME = 4;

/** One connection, and the session that only it uses. */
export interface Slot {
  readonly connection: HttpConnection;
  session: Session | undefined;
  busy: boolean;
}

/** What is sent next from a connection, and what its answer changes. */
interface Next {
  readonly kind: Kind | undefined;
  readonly text: string;
  keep(body: Buffer): void;
}

/** Sends loads to one server over connections that it keeps, each with a session of its own. */
export function createLoadGenerator(to: Destination) {
  const requests = requestsTo(to);
  const slots: Slot[] = [];
  /** Sessions of logins that were measured, and accounts that were registered. */
  const made: { sessions: Tokens[]; accounts: Account[] } = { sessions: [], accounts: [] };
  let logins = 0;
  let stopped = false;

  function slotsFor(count: number): Slot[] {
    while (slots.length < count) slots.push({ connection: httpConnection(to.target), session: undefined, busy: false });
    return slots.slice(0, count);
  }

  const nextAccount = (): Account => accountAt(to.accounts, logins++);

  async function expiring<T>(afterMs: number, work: () => Promise<T>): Promise<T> {
    const timer = setInterval(() => {
      for (const { connection } of slots) connection.expire(afterMs);
    }, EXPIRE_EVERY_MS);
    return work().finally(() => clearInterval(timer));
  }

  /** Gives each of so many connections a session. @returns the error that came in place of one */
  function logIn(count: number): Promise<string | null> {
    const waiting = slotsFor(count).filter(({ session }) => session === undefined);
    let fault: string | null = null;
    const work = async () => {
      for (let slot = waiting.pop(); slot && fault === null && !stopped; slot = waiting.pop()) {
        const reply = await exchange(slot.connection, requests.login(nextAccount()));
        slot.session = "status" in reply && reply.status === 200 ? sessionOf(reply.body) : undefined;
        if (!slot.session) fault ??= errorName(reply);
      }
    };
    return expiring(SET_UP_TIMEOUT_MS, async () => {
      await Promise.all(Array.from({ length: LOGINS_AT_A_TIME }, work));
      return fault;
    });
  }

  const NEXT: Readonly<Record<Kind, (slot: Slot, session: () => Session) => Omit<Next, "kind">>> = {
    login: () => ({ text: requests.login(nextAccount()), keep: (body) => void made.sessions.push(...tokensIn(body)) }),
    register() {
      const account = newAccount(to.prefix, made.accounts.length);
      made.accounts.push(account);
      return { text: requests.register(account), keep: () => {} };
    },
    refresh: (slot, session) => ({
      text: requests.refresh(session()),
      keep(body) {
        slot.session = sessionOf(body) ?? slot.session;
      },
    }),
    verify: (_, session) => ({ text: requests.verify(session()), keep: () => {} }),
    introspect: (_, session) => ({ text: requests.introspect(session()), keep: () => {} }),
  };

  function sourceOf({ what }: Load): (slot: Slot) => Next {
    if ("raw" in what) return () => ({ kind: undefined, text: what.raw, keep: () => {} });
    const nextKind = sequenceOf(what.mix);
    return (slot) => {
      const kind = nextKind();
      return { kind, ...NEXT[kind](slot, () => requireSession(slot)) };
    };
  }

  /** The first request of a kind has a server load what it needs from then on; it is not to be measured. */
  async function sendFirst({ what }: Load, slot: Slot): Promise<void> {
    for (const kind of "mix" in what ? (Object.keys(what.mix) as Kind[]) : []) {
      const { text, keep } = NEXT[kind](slot, () => requireSession(slot));
      const reply = await exchange(slot.connection, text);
      if ("status" in reply && reply.status === 200) keep(reply.body);
    }
  }

  /** Sends a load until its time is over or {@link stop} is called. */
  async function run(load: Load, tell: (event: LoadEvent) => void): Promise<LoadResult> {
    const free = slotsFor(load.connections);
    const [first] = free;
    if (first) await expiring(SET_UP_TIMEOUT_MS, () => sendFirst(load, first));
    const began = performance.now();
    const from = began + load.warmUpMs;
    const until = from + load.durationMs;
    const tally = createTally({ from, until });
    const next = sourceOf(load);
    const isOver = () => stopped || performance.now() >= until;
    const perMs = (load.rate ?? 0) / 1000;
    const dueAt = (index: number) => began + index / perMs;
    let sent = 0;
    const idle = Promise.withResolvers<void>();

    function send(slot: Slot, due: number): void {
      slot.busy = true;
      if (slot.session && slot.session.endsAt - performance.now() < RENEW_BEFORE_MS) {
        renew(slot, slot.session, () => send(slot, due));
        return;
      }
      const { kind, text, keep } = next(slot);
      slot.connection.send(text, (reply) => {
        slot.busy = false;
        if ("status" in reply && reply.status === 200) keep(reply.body);
        const pauseMs = tally.replied(kind, due, reply) || load.rate !== null ? 0 : PAUSE_AFTER_REFUSAL_MS;
        if (pauseMs === 0) goOn(slot);
        else setTimeout(goOn, pauseMs, slot);
      });
    }

    /** A connection is free again. */
    function goOn(slot: Slot): void {
      if (isOver()) endWhenIdle();
      else if (load.rate === null) send(slot, performance.now());
      else if (dueAt(sent) <= performance.now()) {
        const due = dueAt(sent++);
        tally.waited(due);
        send(slot, due);
      }
    }

    /** Requests that are due, on connections that are free. */
    function sendDue(): void {
      if (isOver()) return;
      for (const slot of free) {
        const late = performance.now() - dueAt(sent);
        if (late < 0) return;
        if (slot.busy) continue;
        const due = dueAt(sent++);
        tally.sentLate(due, late);
        send(slot, due);
      }
    }

    function endWhenIdle(): void {
      if (isOver() && free.every(({ busy }) => !busy)) idle.resolve();
    }

    const processor = measureProcessor(load, tell);
    const timers = [
      setInterval(() => tell({ at: "now", ...tally.now() }), TELL_EVERY_MS),
      setInterval(endWhenIdle, EXPIRE_EVERY_MS),
      ...(load.rate === null ? [] : [setInterval(sendDue, 1)]),
    ];
    if (load.rate === null) for (const slot of free) send(slot, began);
    return expiring(load.timeoutMs, async () => {
      await idle.promise;
      await processor.end(stopped);
      for (const timer of timers) clearInterval(timer);
      const due = Math.ceil((until - began) * perMs);
      if (!stopped) for (; sent < due; sent++) tally.neverSent(dueAt(sent));
      return tally.result(processor.cores());
    });
  }

  /** So that a long run does not end with the lifetime of its tokens. */
  function renew(slot: Slot, session: Session, then: () => void): void {
    slot.connection.send(requests.refresh(session), (reply) => {
      const renewed = "status" in reply ? sessionOf(reply.body) : undefined;
      slot.session = renewed ?? { ...session, endsAt: Number.POSITIVE_INFINITY };
      then();
    });
  }

  return {
    logIn,
    run,
    /** Ends the sessions that were begun; with `accounts` also what was registered, as far as that can be. */
    cleanUp: (options: { readonly accounts: boolean }): Promise<CleanedUp> =>
      expiring(SET_UP_TIMEOUT_MS, () => takeBack(slots, requests, made, options)),
    stop() {
      stopped = true;
    },
    close() {
      for (const { connection } of slots) connection.close();
    },
  };
}

export type LoadGenerator = ReturnType<typeof createLoadGenerator>;

function requireSession({ session }: Slot): Session {
  if (!session) throw new Error("This connection has no session");
  return session;
}

function tokensIn(body: Buffer): Tokens[] {
  const session = sessionOf(body);
  return session ? [session] : [];
}

/** How many cores this process keeps busy in the measured time, whose beginning and end it tells. */
function measureProcessor({ warmUpMs, durationMs }: Load, tell: (event: LoadEvent) => void) {
  let begin = process.cpuUsage();
  let used = begin;
  const ended = Promise.withResolvers<void>();
  const timers = [
    setTimeout(() => {
      begin = process.cpuUsage();
      tell({ at: "begin" });
    }, warmUpMs),
    setTimeout(() => {
      used = process.cpuUsage(begin);
      tell({ at: "end" });
      ended.resolve();
    }, warmUpMs + durationMs),
  ];
  return {
    /** Waits for the end of the time, unless it was cut short. */
    async end(early: boolean): Promise<void> {
      if (!early) return ended.promise;
      for (const timer of timers) clearTimeout(timer);
    },
    cores: () => (used.user + used.system) / 1000 / durationMs,
  };
}
