import { createHash } from "node:crypto";
import { createServer, type ServerResponse } from "node:http";

type Answer = (response: ServerResponse, bytes: Buffer) => void;

/** How a server of lists behaves. All but the first are faults. */
export const LIST_BEHAVIOURS = {
  good: (response, bytes) => void response.end(bytes),
  hung: () => {},
  stalled: (response, bytes) => {
    response.writeHead(200, { "content-length": String(bytes.length) });
    response.write(bytes.subarray(0, 20));
  },
  dripping: (response) => {
    const timer = setInterval(() => response.write("# still here\n"), 20);
    response.once("close", () => clearInterval(timer));
  },
  cutOff: (response, bytes) => {
    response.writeHead(200, { "content-length": String(bytes.length) });
    response.write(bytes.subarray(0, bytes.length / 2), () => response.socket?.destroy());
  },
  halfALine: (response, bytes) => void response.end(bytes.subarray(0, bytes.length - 3)),
  dropped: (response) => void response.socket?.destroy(),
  status404: (response) => void response.writeHead(404).end("not here"),
  status503: (response) => void response.writeHead(503).end(),
  redirect: (response) => void response.writeHead(302, { location: "http://127.0.0.1:1/private" }).end(),
  packed: (response, bytes) => void response.writeHead(200, { "content-encoding": "gzip" }).end(bytes),
  page: (response) => void response.end("<html><h1>Log in to the Wi-Fi</h1></html>\n"),
  nothing: (response) => void response.end("# all comments\n"),
  everything: (response) => void response.end("198.51.100.0/24\n0.0.0.0/0\n"),
  endless: (response) => {
    const chunk = "198.51.100.0/24\n".repeat(4096);
    const more = () => {
      while (!response.destroyed && response.write(chunk));
    };
    response.on("drain", more);
    more();
  },
} as const satisfies Record<string, Answer>;
export type ListBehaviour = keyof typeof LIST_BEHAVIOURS;

/** A server of lists on this machine, with the checksum of each beside it. */
export interface ListService {
  readonly url: string;
  behaviour: ListBehaviour;
  /** By path, such as "/bad.txt". What is not in it is 404. */
  readonly files: Record<string, string | Buffer>;
  readonly requests: string[];
  stop(): void;
}

export const sumOf = (text: string | Buffer): string => `${createHash("sha256").update(text).digest("hex")}  bad.txt\n`;

export async function startListService(): Promise<ListService> {
  const server = createServer(({ url = "" }, response) => {
    service.requests.push(url);
    const file = service.files[url.split("?")[0] ?? ""];
    if (file === undefined) response.writeHead(404).end();
    else LIST_BEHAVIOURS[service.behaviour](response, Buffer.from(file));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address ? address.port : 0;
  const service: ListService = {
    url: `http://127.0.0.1:${port}`,
    behaviour: "good",
    files: {},
    requests: [],
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
  return service;
}
