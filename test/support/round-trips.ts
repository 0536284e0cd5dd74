import { connect, createServer, type Socket } from "node:net";

/** How long an answer is held back (milliseconds): longer than it takes to send all that does not wait for it. */
const ANSWER_DELAY_MS = 15;

/** A way to PostgreSQL that counts how often somebody waits for an answer before going on. */
export interface CountingWay {
  readonly url: string;
  /** How many round trips some work takes: what is sent in one piece is one. */
  count(work: () => Promise<unknown>): Promise<number>;
  close(): void;
}

/** Opens such a way to a database. Every answer comes late, so whatever is sent without waiting for it comes before. */
export async function countingWay(databaseUrl: string): Promise<CountingWay> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  let trips = 0;
  const server = createServer((client) => {
    const database = connect(Number(target.port), target.hostname);
    let waits = false;
    client.on("data", (bytes) => {
      if (!waits) trips++;
      waits = true;
      database.write(bytes);
    });
    database.on("data", (bytes) => {
      setTimeout(() => {
        waits = false;
        client.write(bytes);
      }, ANSWER_DELAY_MS);
    });
    for (const socket of [client, database]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        client.destroy();
        database.destroy();
      });
    }
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const url = new URL(databaseUrl);
  url.hostname = "127.0.0.1";
  url.port = String((server.address() as { port: number }).port);
  return {
    url: url.href,
    async count(work) {
      const before = trips;
      await work();
      return trips - before;
    },
    close() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
