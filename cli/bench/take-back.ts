import type { Reply } from "./http-connection.ts";
import type { CleanedUp } from "./load.ts";
import type { Slot } from "./load-generator.ts";
import { type Account, exchange, type Requests, sessionOf, type Tokens } from "./requests.ts";

/** How long it may take altogether (milliseconds). */
const CLEAN_UP_MS = 60_000;

interface Made {
  readonly sessions: readonly Tokens[];
  readonly accounts: readonly Account[];
}

const worked = (reply: Reply) => "status" in reply && reply.status >= 200 && reply.status < 300;

/** Logs out what logged in, one by one: other sessions of the same accounts are not ours. Tells what is left. */
export async function takeBack(
  slots: readonly Slot[],
  requests: Requests,
  made: Made,
  { accounts }: { readonly accounts: boolean },
): Promise<CleanedUp> {
  const deadline = performance.now() + CLEAN_UP_MS;
  const sessions = [...made.sessions, ...slots.flatMap(({ session }) => (session ? [session] : []))];
  const registered = accounts ? [...made.accounts] : [];
  const total = sessions.length;
  let [sessionsEnded, accountsDeactivated] = [0, 0];

  /** False where no further one has to be tried: those that wait for their address to be confirmed cannot log in. */
  async function deactivate({ connection }: Slot, account: Account): Promise<boolean> {
    const reply = await exchange(connection, requests.login(account));
    const session = "status" in reply && reply.status === 200 ? sessionOf(reply.body) : undefined;
    if (!session) return false;
    if (worked(await exchange(connection, requests.deactivate(session)))) accountsDeactivated++;
    return true;
  }

  async function work(slot: Slot): Promise<void> {
    const inTime = () => performance.now() < deadline;
    for (let next = sessions.pop(); next && inTime(); next = sessions.pop()) {
      if (worked(await exchange(slot.connection, requests.logout(next)))) sessionsEnded++;
    }
    for (let next = registered.pop(); next && inTime(); next = registered.pop()) {
      if (!(await deactivate(slot, next))) return;
    }
  }

  await Promise.all(slots.filter(({ busy }) => !busy).map(work));
  return {
    sessionsEnded,
    sessionsLeft: total - sessionsEnded,
    accountsDeactivated,
    accountsLeft: made.accounts.length - accountsDeactivated,
  };
}
