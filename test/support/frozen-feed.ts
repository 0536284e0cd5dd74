import { connect, createServer, type Socket } from "node:net";
import type { ChangeFeed } from "../../db/database.ts";

/** A way to PostgreSQL on which word of changes can be held back, as by a line that hangs without being closed. */
export interface FreezableWay {
  readonly url: string;
  /** From now on nothing passes on connections that listen for changes. */
  freeze(): void;
  close(): void;
}

/** Opens such a way to a database; what else passes is let through. */
export async function freezableWay(databaseUrl: string): Promise<FreezableWay> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  let frozen = false;

  const server = createServer((client) => {
    const database = connect(Number(target.port), target.hostname);
    let listens = false;
    for (const socket of [client, database]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        client.destroy();
        database.destroy();
      });
    }
    client.on("data", (bytes) => {
      listens ||= /\blisten\b/i.test(bytes.toString("latin1"));
      if (!(frozen && listens)) database.write(bytes);
    });
    database.on("data", (bytes) => {
      if (!(frozen && listens)) client.write(bytes);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const url = new URL(databaseUrl);
  url.hostname = "127.0.0.1";
  url.port = String(typeof address === "object" && address ? address.port : 0);
  return {
    url: url.href,
    freeze() {
      frozen = true;
    },
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** A feed on which nothing is heard any more, by a clock that stands still until it is moved. */
export function deafFeed(): ChangeFeed & { moveTo(time: number): void } {
  let time = 0;
  return {
    now: () => time,
    age: (since) => time - since,
    settled: async () => {},
    close: async () => {},
    moveTo(to) {
      time = to;
    },
  };
}
