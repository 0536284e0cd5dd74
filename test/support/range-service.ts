import { createHash } from "node:crypto";
import { createServer, type ServerResponse } from "node:http";
import { gzipSync } from "node:zlib";

export const sha1Of = (password: string): string => createHash("sha1").update(password).digest("hex").toUpperCase();

/** What the service knows: passwords with the count it answers for each. */
type Known = Readonly<Record<string, number>>;

const FILLER = Array.from({ length: 800 }, (_, index) => sha1Of(`filler ${index}`).slice(5));

/** The lines that belong to a prefix, with fillers before and after them as padding: they have the count 0. */
function rangeOf(prefix: string, known: Known): string {
  const lines = Object.entries(known)
    .map(([password, count]) => [sha1Of(password), count] as const)
    .filter(([hash]) => hash.startsWith(prefix))
    .map(([hash, count]) => `${hash.slice(5)}:${count}`);
  return [...lines, ...FILLER.map((suffix) => `${suffix}:0`)].sort().join("\r\n");
}

type Answer = (response: ServerResponse, range: string) => void;

/** How the service behaves. All but the first two are faults. */
export const BEHAVIOURS = {
  good: (response, range) => void response.end(range),
  lowerCase: (response, range) => void response.end(range.toLowerCase()),
  hung: () => {},
  hungAfterHeaders: (response) => response.flushHeaders(),
  dripping: (response, range) => {
    let at = 0;
    const timer = setInterval(() => response.write(range.charAt(at++)), 20);
    response.once("close", () => clearInterval(timer));
  },
  dropped: (response) => void response.socket?.destroy(),
  cutOff: (response, range) => {
    response.writeHead(200, { "content-length": String(range.length) });
    response.write(range.slice(0, 500), () => response.socket?.destroy());
  },
  status500: (response) => void response.writeHead(500).end("0".repeat(35)),
  status429: (response) => void response.writeHead(429, { "retry-after": "2" }).end(),
  redirect: (response) => void response.writeHead(302, { location: "/elsewhere" }).end(),
  page: (response) => void response.writeHead(200, { "content-type": "text/html" }).end("<h1>Log in to the Wi-Fi</h1>"),
  nothing: (response) => void response.end(),
  endless: (response) => {
    const chunk = `${FILLER.map((suffix) => `${suffix}:0`).join("\n")}\n`;
    const more = () => {
      while (!response.destroyed && response.write(chunk));
    };
    response.on("drain", more);
    more();
  },
  packed: (response, range) => void response.writeHead(200, { "content-encoding": "gzip" }).end(gzipSync(range)),
} as const satisfies Record<string, Answer>;
export type Behaviour = keyof typeof BEHAVIOURS;

export interface SeenRequest {
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** A range service on this machine, which behaves as it is told to and remembers what it was asked. */
export interface RangeService {
  readonly url: string;
  behaviour: Behaviour;
  readonly requests: SeenRequest[];
  stop(): void;
}

export async function startRangeService(known: Known = {}): Promise<RangeService> {
  const requests: SeenRequest[] = [];
  const server = createServer(({ method, url, headers }, response) => {
    requests.push({ method, url, headers });
    BEHAVIOURS[service.behaviour](response, rangeOf((url ?? "").slice(-5), known));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address ? address.port : 0;
  const service: RangeService = {
    url: `http://127.0.0.1:${port}`,
    behaviour: "good",
    requests,
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
  return service;
}
