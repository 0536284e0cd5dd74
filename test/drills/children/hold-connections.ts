/**
 * Holds connections open and uses each of them every now and then, one request at a time: `bun hold-connections.ts` with
 * a Held as JSON on standard input. Writes a line with a HeldReport when all are open and each was used once, and one
 * more at the end; until it is ended it keeps those open that nobody has closed.
 */
import { readAnswer } from "../../../cli/bench/http-connection.ts";
import { requestsTo } from "../../../cli/bench/requests.ts";
import type { Held, HeldReport, HeldSession } from "../held.ts";

const held: Held = await Bun.stdin.json();
const { hostname, port, host } = new URL(held.url);
const requests = requestsTo({ authority: host, client: null });
/** One in so many connections refreshes, always the same session; the others have tokens verified. */
const REFRESHING = 10;
const OPENED_AT_A_TIME = 100;
const DEADLINE_MS = 10_000;

type Outcome = { readonly status: number; readonly body: Buffer } | { readonly failure: string };

interface Client {
  readonly socket: Bun.Socket<Client>;
  readonly session: HeldSession;
  readonly refreshes: boolean;
  received: Buffer;
  unsent: Buffer;
  done: ((outcome: Outcome) => void) | undefined;
  /** Ends when what was sent over it is answered. */
  turn: Promise<void>;
}

const NOTHING = Promise.resolve();
const report: HeldReport = { open: 0, closed: 0, refreshed: 0, verified: 0, failures: [], latencies: [] };
const clients: Client[] = [];

function write(client: Client): void {
  const written = client.socket.write(client.unsent);
  client.unsent = client.unsent.subarray(Math.max(0, written));
}

function finish(client: Client, outcome: Outcome): void {
  const { done } = client;
  client.done = undefined;
  client.received = Buffer.alloc(0);
  done?.(outcome);
}

const handler: Bun.SocketHandler<Client> = {
  data({ data: client }, bytes) {
    client.received = Buffer.concat([client.received, bytes]);
    const answer = readAnswer(client.received, false);
    if (answer) finish(client, answer);
  },
  drain: ({ data: client }) => write(client),
  close({ data: client }) {
    report.closed++;
    finish(client, { failure: "closed before the answer" });
  },
  error({ data: client }, error) {
    finish(client, { failure: String(error) });
  },
};

async function open(index: number): Promise<Client> {
  const session = held.sessions[Math.floor(index / REFRESHING) % held.sessions.length];
  if (!session) throw new Error("There is no session to work with");
  const socket = await Bun.connect<Client>({ hostname, port: Number(port), socket: handler });
  const none = Buffer.alloc(0);
  const refreshes = index % REFRESHING === 0;
  const client: Client = { socket, session, refreshes, received: none, unsent: none, done: undefined, turn: NOTHING };
  socket.data = client;
  return client;
}

/** @param dueAt when it is to be sent, by `performance.now()` */
async function use(client: Client, dueAt: number): Promise<void> {
  const { refreshes, session } = client;
  const timer = setTimeout(() => finish(client, { failure: `no answer within ${DEADLINE_MS} ms` }), DEADLINE_MS);
  const outcome = await new Promise<Outcome>((resolve) => {
    client.done = resolve;
    client.unsent = Buffer.from(refreshes ? requests.refresh(session) : requests.verify(session));
    write(client);
  });
  clearTimeout(timer);
  if ("failure" in outcome || outcome.status !== 200) {
    report.failures.push("failure" in outcome ? outcome.failure : `${outcome.status} ${outcome.body}`);
    return;
  }
  report.latencies.push(performance.now() - dueAt);
  if (refreshes) Object.assign(session, JSON.parse(outcome.body.toString()));
  report[refreshes ? "refreshed" : "verified"]++;
}

const tell = () => console.log(JSON.stringify({ ...report, open: clients.length - report.closed }));

while (clients.length < held.connections) {
  const more = Math.min(OPENED_AT_A_TIME, held.connections - clients.length);
  const opened = await Promise.all(Array.from({ length: more }, (_, index) => open(clients.length + index)));
  clients.push(...opened);
  const dueAt = performance.now();
  await Promise.all(opened.map((client) => use(client, dueAt)));
}
tell();

const began = performance.now();
for (let sent = 0; performance.now() - began < held.durationMs; await Bun.sleep(1)) {
  const due = ((performance.now() - began) / held.everyMs) * clients.length;
  for (; sent < due; sent++) {
    const client = clients[sent % clients.length];
    const dueAt = began + (sent / clients.length) * held.everyMs;
    if (client) client.turn = client.turn.then(() => use(client, dueAt));
  }
}
await Promise.all(clients.map(({ turn }) => turn));
tell();
