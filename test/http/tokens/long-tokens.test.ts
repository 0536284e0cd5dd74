import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type RunningServer, startServer } from "../../../server/start.ts";
import { openTestApp, type TestApp } from "../../support/app.ts";
import { freePort } from "../../support/services.ts";

/** What a refusal of nonsense may take (milliseconds), with room for a busy machine. */
const BOUND_MS = 100;

let app: TestApp;
let server: RunningServer;
beforeAll(async () => {
  app = await openTestApp({ PRIMER_SERVER__PORT: String(await freePort()) });
  server = startServer(app.deps);
});
afterAll(async () => {
  await server.stop();
  await app.close();
});

async function verify(token: string) {
  const began = performance.now();
  const answer = await fetch(`${server.url}/api/v1/auth/verify`, { headers: { authorization: `Bearer ${token}` } });
  const body = (await answer.json()) as { error: { code: string } };
  return { status: answer.status, code: body.error.code, tookMs: performance.now() - began };
}

// However long a token is, it is one that is not valid: said in our words, and soon.
describe("a token over a real connection", () => {
  const header = (bytes: number) =>
    Buffer.from(JSON.stringify({ alg: "RS256", x: "x".repeat(bytes) })).toString("base64url");
  test.each([
    ["20 KB of letters", "a".repeat(20_000)],
    ["100 KB of letters", "a".repeat(100_000)],
    ["100 KB of dots", ".".repeat(100_000)],
    ["a header of 75 KB, 100 KB as it is sent", `${header(75_000)}.e30.e30`],
  ])("of %s: 401 AUTH_TOKEN_INVALID", async (_name, token) => {
    await verify("warm.up.x");
    const { tookMs, ...answer } = await verify(token);
    expect(answer).toEqual({ status: 401, code: "AUTH_TOKEN_INVALID" });
    expect(tookMs).toBeLessThan(BOUND_MS);
  });
});
