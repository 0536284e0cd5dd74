import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { assertContract } from "../support/contract.ts";
import { type HttpApp, openListeningApp, readAnswer } from "../support/http-app.ts";
import { countRows } from "../support/scenario.ts";

const LOGIN = "/api/v1/auth/login";

let app: HttpApp;
let before: Awaited<ReturnType<typeof countRows>>;
beforeAll(async () => {
  app = await openListeningApp();
  await app.createUser({ username: "ada" });
  before = await countRows(app);
});
afterAll(() => app.close());

/** Sends bytes as they are and answers what came back until the first answer was complete or the line was closed. */
async function raw(...pieces: (string | Uint8Array)[]): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let received = "";
  const isComplete = () => {
    const end = received.indexOf("\r\n\r\n");
    const length = /^content-length: (\d+)/im.exec(received.slice(0, end))?.[1];
    return end > 0 && received.length >= end + 4 + Number(length ?? 0);
  };
  const pending = pieces.map((piece) => Buffer.from(piece as Uint8Array));
  const send = (socket: { write(bytes: Uint8Array): number }) => {
    for (let piece = pending.shift(); piece; piece = pending.shift()) {
      const written = socket.write(piece);
      if (written >= piece.length) continue;
      pending.unshift(piece.subarray(Math.max(0, written)));
      return;
    }
  };
  const late = setTimeout(() => reject(new Error(`No complete answer: ${received.slice(0, 200)}`)), 10_000);
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port: Number(new URL(app.url).port),
    socket: {
      open: send,
      drain: send,
      data(_socket, bytes) {
        received += bytes.toString("latin1");
        if (isComplete()) resolve(received);
      },
      close: () => resolve(received),
      error: (_socket, error) => reject(error),
    },
  });
  try {
    return await promise;
  } finally {
    clearTimeout(late);
    socket.end();
  }
}

/** An answer in bytes, held against the contract like any other. */
async function answerOf(bytes: string, method: string, path: string) {
  const [head = "", body = ""] = bytes.split(/\r\n\r\n([\s\S]*)/);
  const [first = "", ...lines] = head.split("\r\n");
  const headers = new Headers(
    lines.map((line): [string, string] => {
      const at = line.indexOf(":");
      return [line.slice(0, at), line.slice(at + 1).trim()];
    }),
  );
  const answer = await readAnswer(new Response(body, { status: Number(first.split(" ")[1]), headers }));
  assertContract(app.document, method, path, answer);
  return answer;
}

const post = (headers: string) =>
  `POST ${LOGIN} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n${headers}\r\n\r\n`;
const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`;
const KIB = 1024;

const TOO_LARGE: Readonly<Record<string, string[]>> = {
  "65 KiB with Content-Length": [post(`Content-Length: ${65 * KIB}`), "x".repeat(65 * KIB)],
  "65 KiB with Content-Length twice": [
    post(`Content-Length: ${65 * KIB}\r\nContent-Length: ${65 * KIB}`),
    "x".repeat(65 * KIB),
  ],
  "65 KiB in chunks": [post("Transfer-Encoding: chunked"), chunk("x".repeat(65 * KIB)), "0\r\n\r\n"],
  "65 KiB in many chunks": [post("Transfer-Encoding: chunked"), ...Array(65).fill(chunk("x".repeat(KIB))), "0\r\n\r\n"],
  "65 KiB announced and not sent": [post(`Content-Length: ${65 * KIB}`), "x"],
  "3 MiB with Content-Length": [post(`Content-Length: ${3 * KIB * KIB}`), "x".repeat(3 * KIB * KIB)],
  "1 GiB announced": [post(`Content-Length: ${KIB * KIB * KIB}`), "x"],
};

describe("the listener", () => {
  // A body over the limit is refused in the envelope, however it is sent, before it is held in memory.
  for (const [name, pieces] of Object.entries(TOO_LARGE)) {
    test(`413 ${name}`, async () => {
      const answer = await answerOf(await raw(...pieces), "POST", LOGIN);
      expect({ status: answer.status, code: answer.body.error.code }).toEqual({
        status: 413,
        code: "PAYLOAD_TOO_LARGE",
      });
    });
  }

  // TRACE would show a script what it may not see; methods nobody has heard of are told which there are.
  for (const method of ["TRACE", "PROPFIND", "CONNECT"]) {
    test(`405 ${method}`, async () => {
      const answer = await answerOf(
        await raw(`${method} /livez HTTP/1.1\r\nHost: x\r\nX-Secret: canary\r\n\r\n`),
        method,
        "/livez",
      );
      expect({ status: answer.status, allow: answer.headers.get("allow") }).toEqual({
        status: 405,
        allow: "GET, HEAD",
      });
      expect(answer.text).not.toContain("canary");
    });
  }

  const BROKEN: Readonly<Record<string, string>> = {
    "no HTTP at all": "hello\r\n\r\n",
    "no Host": "GET /livez HTTP/1.1\r\n\r\n",
    "two lengths": `${post("Content-Length: 5\r\nContent-Length: 6")}hello!`,
    "length and chunks": `${post("Content-Length: 5\r\nTransfer-Encoding: chunked")}0\r\n\r\n`,
    "a length that is no number": `${post("Content-Length: 5x")}hello`,
    "a header of 64 KiB": `GET /api/v1/auth/verify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${"a".repeat(64 * KIB)}\r\n\r\n`,
    "NUL in a header": "GET /livez HTTP/1.1\r\nHost: x\r\nUser-Agent: a\u0000b\r\n\r\n",
    "ESC in a header": "GET /livez HTTP/1.1\r\nHost: x\r\nUser-Agent: \u001b[31m\r\n\r\n",
    "a chunk whose size is none": `${post("Transfer-Encoding: chunked")}zz\r\nhello\r\n0\r\n\r\n`,
  };

  // What is no request is refused before it reaches us, or the line is closed: never a 5xx, and the next one is served.
  for (const [name, bytes] of Object.entries(BROKEN)) {
    test(`${name}: refused`, async () => {
      const status = /^HTTP\/1\.1 (\d{3})/.exec(await raw(bytes))?.[1];
      expect(["400", "401", "411", "413", "415", "431", undefined]).toContain(status);
      expect((await app.request("GET", "/livez")).status).toBe(200);
    });
  }

  // An absolute target or another Host changes nothing about which route answers, nor what is answered.
  test("the Host header decides nothing", async () => {
    const answers = [
      await raw("GET /livez HTTP/1.1\r\nHost: evil.test\r\nX-Forwarded-Host: evil.test\r\n\r\n"),
      await raw("GET http://evil.test/livez HTTP/1.1\r\nHost: x\r\n\r\n"),
    ];
    for (const bytes of answers) {
      expect(bytes.startsWith("HTTP/1.1 200")).toBe(true);
      expect(bytes).not.toContain("evil");
    }
  });

  test("nothing of all this left a row", async () => {
    expect(await countRows(app)).toEqual(before);
  });
});
