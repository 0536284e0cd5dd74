import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { type ServedHome, serveHome } from "../support/server.ts";
import { type SmtpHost, startSmtp } from "../worker/support/smtp.ts";
import { findChromium, launchChromium, type WatchedBrowser, type WatchedPage } from "./support/chromium.ts";

const executable = findChromium();
if (!executable && !process.env.CI) console.warn("DID NOT RUN: the pages of accounts (no Chromium on this machine)");
/** Where pictures of the pages are kept, for whoever wants to look at them. */
const PICTURES = process.env.PAGE_PICTURES;
const PASSWORD = "correct horse battery staple";
const FRESH = "another horse battery staple";

describe.if(Boolean(executable))("the pages that mails link to", () => {
  let smtp: SmtpHost;
  let served: ServedHome;
  let browser: WatchedBrowser;
  let shown: WatchedPage;
  beforeAll(async () => {
    smtp = await startSmtp();
    served = await serveHome({
      SMTP_URL: `smtp://localhost:${smtp.port}`,
      PRIMER_MAIL__PRODUCT_NAME: "Lovelace & Sons",
      PRIMER_RATE_LIMITS__LOGIN_IP: "off",
    });
    browser = await launchChromium(executable ?? "");
    shown = await browser.open();
  });
  afterAll(async () => {
    await shown?.close();
    await browser?.close();
    await served?.remove();
    await smtp?.close();
  });

  const post = (path: string, body: unknown, agent = "curl/8") =>
    fetch(`${served.url}/api/v1/auth/${path}`, {
      method: "POST",
      headers: { "content-type": "application/json", "user-agent": agent },
      body: JSON.stringify(body),
    });
  const logIn = async (password: string, agent?: string) =>
    (await post("login", { username: "ada", password }, agent)).status;
  const message = () => shown.page.locator("#message");

  async function linkOf(subject: RegExp): Promise<string> {
    const deadline = performance.now() + 20_000;
    while (performance.now() < deadline) {
      const found = smtp.received.find(({ mail }) => subject.test(mail.subject ?? ""));
      const link = /https?:\/\/\S+#token=[\w-]+/.exec(found?.mail.text ?? "")?.[0];
      if (link) return link;
      await Bun.sleep(50);
    }
    throw new Error(`No mail with a link: ${smtp.received.map(({ mail }) => mail.subject).join(", ")}`);
  }

  async function picture(name: string): Promise<void> {
    if (PICTURES === undefined) return;
    mkdirSync(PICTURES, { recursive: true });
    for (const [scheme, width] of [
      ["light", 1280],
      ["dark", 1280],
      ["light", 360],
      ["dark", 360],
    ] as const) {
      await shown.page.emulateMedia({ colorScheme: scheme });
      await shown.page.setViewportSize({ width, height: 740 });
      await shown.page.screenshot({ path: join(PICTURES, `${name}-${scheme}-${width}.png`) });
    }
  }

  /** Nobody but this server is asked for anything, and the policy forbids nothing that the page wants to do. */
  async function expectClean(): Promise<void> {
    expect(shown.sentAway).toEqual([]);
    expect(await shown.violations()).toEqual([]);
    expect(shown.page.url()).not.toContain("token");
    expect(await shown.page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth)).toBe(true);
  }

  // Opening a link changes nothing: mail readers and scanners open links too. The button does.
  test("a registration, from the form to the first login", async () => {
    const body = { username: "ada", email: "ada@example.org", password: PASSWORD };
    expect((await post("register", body)).status).toBe(202);
    const link = await linkOf(/confirm|verify/i);
    for (let count = 0; count < 3; count++) expect((await fetch(link)).status).toBe(200);
    expect(await logIn(PASSWORD)).toBe(403);
    await shown.page.goto(link);
    await expectClean();
    expect(await shown.page.title()).toContain("Lovelace & Sons");
    await picture("verify-email");
    expect(await logIn(PASSWORD)).toBe(403);
    await shown.page.getByRole("button", { name: "Confirm my address" }).click();
    await shown.page.waitForSelector("#message.good");
    expect(await logIn(PASSWORD)).toBe(200);
    await picture("verify-email-done");

    await shown.page.goto("about:blank");
    await shown.page.goto(link);
    await shown.page.getByRole("button").click();
    await shown.page.waitForSelector("#message.bad");
    expect(await message().textContent()).toContain("not valid any more");
  });

  test("a forgotten password: a weak one is explained, a good one is set, by keyboard alone", async () => {
    expect((await post("forgot-password", { email: "ada@example.org" })).status).toBe(202);
    await shown.page.goto(await linkOf(/password/i));
    await picture("reset-password");
    await shown.page.getByLabel("New password").focus();
    await shown.page.keyboard.type("qwertyuiopasdfgh");
    await shown.page.keyboard.press("Enter");
    await shown.page.waitForSelector("#message.bad");
    expect(await message().textContent()).toMatch(/too weak\. .{10,}/);
    await picture("reset-password-weak");
    await shown.page.getByLabel("New password").fill(FRESH);
    await shown.page.keyboard.press("Enter");
    await shown.page.waitForSelector("#message.good");
    await expectClean();
    expect([await logIn(PASSWORD), await logIn(FRESH)]).toEqual([401, 200]);
  });

  test("a sign-in that was somebody else's", async () => {
    const other = await post("login", { username: "ada", password: FRESH }, "Somebody Else/1.0");
    const { access_token } = (await other.json()) as { access_token: string };
    const verify = async () =>
      (await fetch(`${served.url}/api/v1/auth/verify`, { headers: { authorization: `Bearer ${access_token}` } }))
        .status;
    expect(await verify()).toBe(200);
    await shown.page.goto(await linkOf(/sign-in/i));
    await picture("end-session");
    await shown.page.getByRole("button").click();
    await shown.page.waitForSelector("#message.good");
    await expectClean();
    expect(await verify()).toBe(401);
  });

  test("a link without a token", async () => {
    await shown.page.goto(`${served.url}/account/reset-password`);
    expect(await message().textContent()).toContain("not valid any more");
    expect(await shown.page.getByRole("button").count()).toBe(0);
  });
});
