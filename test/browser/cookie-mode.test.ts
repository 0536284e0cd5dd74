import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ServedHome, serveHome } from "../support/server.ts";
import { findChromium, launchChromium, type WatchedBrowser, type WatchedPage } from "./support/chromium.ts";

const executable = findChromium();
if (!executable && !process.env.CI) {
  console.warn("DID NOT RUN: cookie mode in a real browser (no Chromium on this machine)");
}

let home: ServedHome;
let browser: WatchedBrowser;
let own: WatchedPage;
/** A page of another origin, which the browser sends the cookies of ours along with: it is the same site. */
let stranger: { url: string; stop(): void };
beforeAll(async () => {
  if (!executable) return;
  home = await serveHome({ PRIMER_TOKENS__FINGERPRINT: "true", PRIMER_RATE_LIMITS__LOGIN_IP: "off" });
  browser = await launchChromium(executable);
  own = await browser.open();
  await own.page.goto(`${home.url}/docs`);
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: () => new Response("<title>stranger</title>", { headers: { "content-type": "text/html" } }),
  });
  stranger = { url: `http://127.0.0.1:${server.port}`, stop: () => void server.stop(true) };
}, 60_000);
afterAll(async () => {
  if (!executable) return;
  stranger.stop();
  await browser.close();
  await home.remove();
});

interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever was answered
  readonly body: any;
}

/** A request by the script of a page, with the cookies that the browser adds. */
const send = (path: string, body?: object, token?: string): Promise<Answer> =>
  own.page.evaluate(
    async ({ path, body, token }) => {
      const answer = await fetch(`/api/v1/auth/${path}`, {
        method: path === "verify" ? "GET" : "POST",
        headers: {
          ...(body ? { "content-type": "application/json" } : {}),
          ...(token ? { authorization: `Bearer ${token}` } : {}),
        },
        ...(body ? { body: JSON.stringify(body) } : {}),
      });
      const text = await answer.text();
      return { status: answer.status, body: text ? JSON.parse(text) : null };
    },
    { path, body, token },
  );

const logIn = () => send("login", { username: "admin", password: home.password, cookies: true });

// In a real browser: the page never sees the refresh token, and another origin cannot make use of it.
describe.if(Boolean(executable))("cookie mode in Chromium", () => {
  test("a page logs in, refreshes and verifies, and no script sees a cookie", async () => {
    const login = await logIn();
    expect(login.status).toBe(200);
    expect(login.body).not.toHaveProperty("refresh_token");
    expect(await own.page.evaluate(() => document.cookie)).toBe("");
    expect((await send("verify", undefined, login.body.access_token)).status).toBe(200);
    await own.page.reload();
    const refreshed = await send("refresh");
    expect(refreshed.status).toBe(200);
    expect((await send("verify", undefined, refreshed.body.access_token)).status).toBe(200);
    const elsewhere = await fetch(`${home.url}/api/v1/auth/verify`, {
      headers: { authorization: `Bearer ${refreshed.body.access_token}` },
    });
    expect(elsewhere.status).toBe(401);
  });

  test("a page of another origin gets nothing done with the browser's cookies", async () => {
    await logIn();
    await own.page.goto(stranger.url);
    const outcomes = await own.page.evaluate(async (primer) => {
      const answers: string[] = [];
      for (const path of ["refresh", "logout"]) {
        const url = `${primer}/api/v1/auth/${path}`;
        for (const mode of ["cors", "no-cors"] as const) {
          const answer = await fetch(url, { method: "POST", mode, credentials: "include" }).catch(() => undefined);
          answers.push(answer && answer.type !== "opaque" ? `read ${answer.status}` : "nothing read");
        }
      }
      return answers;
    }, home.url);
    expect(new Set(outcomes)).toEqual(new Set(["nothing read"]));
    await own.page.goto(`${home.url}/docs`);
    expect((await send("refresh")).status).toBe(200);
  });

  test("logout takes the cookies out of the browser, which stays known", async () => {
    await logIn();
    const names = async () => (await own.page.context().cookies()).map(({ name }) => name).sort();
    expect(await names()).toEqual(["primer_device", "primer_fp", "primer_refresh"]);
    expect((await send("logout")).status).toBe(204);
    expect(await names()).toEqual(["primer_device"]);
    expect((await send("refresh")).status).toBe(401);
  });
});
