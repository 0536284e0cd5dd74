/** What a bench opens before it measures: a server, a generator, and what the machine's own limits are measured with. */
import { failed } from "../../config/errors.ts";
import type { Settings } from "../../config/schema.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { hashRate, openSigner } from "./ceiling.ts";
import { type ChildProcess, startChild } from "./child.ts";
import type { CleanedUp } from "./load.ts";
import type { Opening } from "./load-child.ts";
import type { Watcher, Yardstick } from "./measure.ts";
import type { BenchOptions } from "./options.ts";
import { targetOf } from "./requests.ts";
import { signatureOf } from "./surroundings.ts";
import { type BenchTarget, kindsOf, openUrl, startOwn } from "./target.ts";

/** Everything that was opened, and has to be closed in the reverse order whatever happens. */
export interface Opened {
  /** Rejects when the bench is interrupted, whatever is under way. */
  unlessStopped<T>(work: Promise<T>): Promise<T>;
  child(child: ChildProcess): ChildProcess;
  atEnd(close: () => Promise<unknown>): void;
}

/** Runs `work`, and closes what it has opened; also where it is interrupted, at once. */
export async function withEverything<T>(stop: AbortSignal, work: (open: Opened) => Promise<T>): Promise<T> {
  const closing: (() => Promise<unknown>)[] = [];
  const stopped = new Promise<never>((_, reject) => {
    stop.addEventListener("abort", () => reject(failed("Interrupted; what the bench had made was put away.")));
  });
  stopped.catch(() => {});
  const open: Opened = {
    unlessStopped: (promise) => Promise.race([promise, stopped]),
    child(child) {
      closing.push(child.close);
      return { ...child, ask: (...words) => Promise.race([child.ask(...words), stopped]) as never };
    },
    atEnd: (close) => void closing.push(close),
  };
  try {
    return await work(open);
  } finally {
    for (let close = closing.pop(); close; close = closing.pop()) await close();
  }
}

export interface Place {
  readonly target: BenchTarget;
  readonly generator: ChildProcess;
  /** What is left behind and what could not be measured; whole once {@link Opened} was closed. */
  readonly notes: string[];
}

/** Opens the server that is measured and a generator with its sessions. @throws OperatorError where it lets nobody in */
export async function openPlace(
  open: Opened,
  { target: wanted, connections }: BenchOptions,
  carried: Readonly<Record<string, string>>,
  environment: Record<string, string>,
  watcher: Watcher,
): Promise<Place> {
  const target = await openTarget();
  const generator = startChild("load", environment);
  const asked = open.child(generator);
  await asked.ask("open", { to: target.destination, takesBack: wanted.kind === "url" } satisfies Opening);
  const notes: string[] = [];
  if (wanted.kind === "url") {
    open.atEnd(async () => {
      watcher.doing("logging out what the bench has logged in");
      notes.push(...leftBehind(await generator.ask<CleanedUp>("cleanUp")));
    });
  }
  if (kindsOf(wanted).includes("login")) {
    watcher.doing(`logging in ${connections} sessions`);
    const fault = await asked.ask<string | null>("logIn", { connections });
    if (fault !== null) throw loginRefused(fault);
  }
  return { target, generator: asked, notes };

  async function openTarget(): Promise<BenchTarget> {
    if (wanted.kind === "url") {
      const prefix = `bench-${Buffer.from(systemRandom.bytes(4)).toString("hex")}`;
      return open.unlessStopped(openUrl(wanted, prefix));
    }
    const { keeper, begin } = startOwn(wanted, carried, environment);
    open.child(keeper);
    return open.unlessStopped(begin((doing) => watcher.doing(doing)));
  }
}

const loginRefused = (fault: string) =>
  failed(
    `The server refused a login of the bench: ${fault}.`,
    /429/.test(fault)
      ? "Its limits count here as for everybody. Lift rate_limits.login_ip, .refresh and .general there for the time of the bench, or use fewer --connections."
      : "See that the accounts exist there, are active and have this password.",
  );

function leftBehind({ sessionsLeft, accountsDeactivated, accountsLeft }: CleanedUp): string[] {
  const sessions = `${sessionsLeft} sessions could not be logged out; they end by themselves.`;
  const gone = `${accountsDeactivated} accounts that were registered are deactivated, and are erased after accounts.erase_after.`;
  const pending = `${accountsLeft} accounts that were registered (bench-…@bench.invalid) could not be logged in to; where addresses are verified they are erased by themselves after a day.`;
  return [
    sessionsLeft > 0 ? sessions : "",
    accountsDeactivated > 0 ? gone : "",
    accountsLeft > 0 ? pending : "",
  ].filter((note) => note !== "");
}

/** Makes a key, and starts the bare routes with a generator of their own. */
export async function openYardstick(
  open: Opened,
  settings: Settings,
  environment: Record<string, string>,
  watcher: Watcher,
): Promise<Yardstick> {
  watcher.doing(`making a key (${signatureOf(settings)}) to measure signatures with`);
  const signer = await open.unlessStopped(openSigner(settings));
  const port = await open.child(startChild("bare", environment)).ask<number>("port");
  const bare = open.child(startChild("load", environment));
  const authority = `127.0.0.1:${port}`;
  const to = { target: targetOf(`http://${authority}`), authority, accounts: [], client: null, prefix: "" };
  await bare.ask("open", { to, takesBack: false } satisfies Opening);
  return {
    hashRate: (durationMs) => open.unlessStopped(hashRate(settings.password, durationMs)),
    signRate: (durationMs) => open.unlessStopped(signer.rate(durationMs)),
    bare,
    bareAuthority: authority,
  };
}
