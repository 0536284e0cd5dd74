import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { type ServedHome, serveHome } from "../support/server.ts";
import { findChromium, launchChromium, type WatchedBrowser, type WatchedPage } from "./support/chromium.ts";
import {
  authorize,
  execute,
  listedOperations,
  loadDocs,
  openOperation,
  openOperations,
  suggestedBody,
} from "./support/docs-page.ts";

const executable = findChromium();
// Where CI runs, a missing browser is a failure; elsewhere a reason to say loudly what did not run.
if (executable || process.env.CI) {
  test("this machine has a Chromium", () => expect(executable).toBeDefined());
} else {
  console.warn("DID NOT RUN: the pages in a real browser (no Chromium on this machine)");
}

/** Which operations are opened: with TEST_FULL all of them. */
const EVERY = process.env.TEST_FULL ? 1 : 5;
if (EVERY > 1) console.log(`Left out: opening every operation of /docs, and not each ${EVERY}th (TEST_FULL)`);

const LOGIN = ["POST", "/api/v1/auth/login"] as const;
const VERIFY = ["GET", "/api/v1/auth/verify"] as const;
const LOGOUT = ["POST", "/api/v1/auth/logout"] as const;
/** Where nothing of ours is: a name that can never exist (RFC 6761). */
const ELSEWHERE = "http://elsewhere.invalid";

/** What a text that were smuggled into the page could try, and the directive that stops it. */
const SMUGGLED = [
  {
    what: "a script in the text",
    directive: "script-src-elem",
    act: () => {
      const script = document.createElement("script");
      script.textContent = "document.title = 'taken'";
      document.body.append(script);
    },
  },
  {
    what: "a handler in an attribute",
    directive: "script-src-attr",
    act: () => document.body.insertAdjacentHTML("beforeend", `<img src="data:," onerror="document.title = 'taken'">`),
  },
  {
    what: "a script from elsewhere",
    directive: "script-src-elem",
    act: (elsewhere: string) => {
      const script = document.createElement("script");
      script.src = `${elsewhere}/taken.js`;
      document.body.append(script);
    },
  },
  {
    what: "code from a string",
    directive: "script-src",
    // Later, since what a debugger runs at once may do this.
    act: () => void setTimeout(() => new Function("document.title = 'taken'")()),
  },
  {
    what: "a style in an attribute",
    directive: "style-src-attr",
    act: () => document.body.insertAdjacentHTML("beforeend", `<p style="position:fixed">taken</p>`),
  },
  {
    what: "a style sheet in the text",
    directive: "style-src-elem",
    act: () => document.body.insertAdjacentHTML("beforeend", "<style>body { display: none }</style>"),
  },
  {
    what: "an image from elsewhere",
    directive: "img-src",
    act: (elsewhere: string) => document.body.insertAdjacentHTML("beforeend", `<img src="${elsewhere}/taken.png">`),
  },
  {
    what: "a request elsewhere",
    directive: "connect-src",
    act: (elsewhere: string) => void fetch(`${elsewhere}/taken`).catch(() => undefined),
  },
  {
    what: "another base for links",
    directive: "base-uri",
    act: (elsewhere: string) => document.head.insertAdjacentHTML("beforeend", `<base href="${elsewhere}/">`),
  },
  {
    what: "a frame",
    directive: "frame-src",
    act: (elsewhere: string) => document.body.insertAdjacentHTML("beforeend", `<iframe src="${elsewhere}"></iframe>`),
  },
  {
    what: "a form sent elsewhere",
    directive: "form-action",
    act: (elsewhere: string) => {
      const form = document.createElement("form");
      form.action = `${elsewhere}/taken`;
      document.body.append(form);
      form.submit();
    },
  },
] as const;

describe.if(executable !== undefined)("/docs in Chromium", () => {
  let served: ServedHome;
  let browser: WatchedBrowser;

  beforeAll(async () => {
    // The tests log in more often than a person does in a minute.
    served = await serveHome({ PRIMER_RATE_LIMITS__LOGIN_IP: "off", PRIMER_RATE_LIMITS__GENERAL: "off" });
    browser = await launchChromium(executable ?? "");
  });
  afterAll(async () => {
    await browser?.close();
    await served?.remove();
  });

  describe("in use", () => {
    let watched: WatchedPage;
    beforeEach(async () => {
      watched = await browser.open();
      await loadDocs(watched.page, served.url);
    });
    afterEach(() => watched?.close());

    const admin = () => ({ username: "admin", password: served.password });

    /** Logs in by "Try it out" and gives the token to the page. */
    async function logInOnPage(): Promise<void> {
      const { body } = await execute(await openOperation(watched.page, ...LOGIN), admin());
      await authorize(watched.page, body.access_token);
    }

    /** Nothing was asked of anybody else, forbidden by the policy, or complained about, but for the answers named. */
    async function expectQuiet(refused: readonly string[] = []): Promise<void> {
      const foreign = watched.requests.filter((request) => new URL(request).origin !== served.url);
      expect({ foreign, sentAway: watched.sentAway }).toEqual({ foreign: [], sentAway: [] });
      expect(await watched.violations()).toEqual([]);
      // Chromium itself writes a line for each answer of 400 and above; it names the address.
      const complaints = watched.consoleErrors.map(({ url, text }) => url || text);
      expect(complaints).toEqual(refused.map((path) => served.url + path));
    }

    // The page works on a closed network: it lists every operation and asks nothing of anybody but this server.
    test("lists every operation of the document, from this server alone", async () => {
      const document = (await (await fetch(`${served.url}/docs/json`)).json()) as { paths: Record<string, object> };
      const described = Object.entries(document.paths).flatMap(([path, operations]) =>
        Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`),
      );
      expect(described).toContain(LOGIN.join(" "));
      expect((await listedOperations(watched.page)).sort()).toEqual(described.sort());

      expect(await openOperations(watched.page, EVERY)).toBe(Math.ceil(described.length / EVERY));
      const paths = watched.requests.map((request) => new URL(request).pathname);
      expect(paths).toEqual(expect.arrayContaining(["/docs", "/docs/swagger-ui-bundle.js", "/docs/json"]));
      await expectQuiet();
    });

    // What the page is given as an icon exists, so that the browser does not ask for one that does not.
    test("names an icon that is there", async () => {
      const icon = await watched.page.evaluate(() => document.querySelector<HTMLLinkElement>("link[rel~=icon]")?.href);
      expect(icon).toMatch(new RegExp(`^(data:|${served.url}/)`));
      expect((await fetch(icon ?? "")).status).toBe(200);
    });

    // A person logs in, authorises and verifies by hand on the page, and the token stays in the page's memory.
    test("Try it out: log in, authorise, verify", async () => {
      const verify = await openOperation(watched.page, ...VERIFY);
      const before = await execute(verify);
      expect(before.status).toBe("401");
      expect(before.body.error.code).toBe("AUTH_TOKEN_MISSING");

      const login = await execute(await openOperation(watched.page, ...LOGIN), admin());
      expect(login.status).toBe("200");
      expect(login.body).toMatchObject({ token_type: "bearer", session_id: expect.any(String) });
      expect(login.body.access_token).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/);

      await authorize(watched.page, login.body.access_token);
      const after = await execute(verify);
      expect(after.status).toBe("200");
      expect(after.body).toMatchObject({ active: true, username: "admin", sid: login.body.session_id });

      const stored = await watched.page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]));
      expect(stored).not.toContain(login.body.access_token);
      await expectQuiet([VERIFY[1]]);
    });

    // A wrong password is answered by the envelope, and the page shows it whole.
    test("Try it out: a wrong password", async () => {
      const answer = await execute(await openOperation(watched.page, ...LOGIN), {
        ...admin(),
        password: "not the password",
      });
      expect(answer.status).toBe("401");
      expect(answer.body).toEqual({
        error: {
          code: "AUTH_INVALID_CREDENTIALS",
          message: expect.any(String),
          timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
          request_id: expect.any(String),
        },
      });
      expect(answer.headers).toContain(`x-request-id: ${answer.body.error.request_id}`);
      expect(answer.text).not.toContain("access_token");
      await expectQuiet([LOGIN[1]]);
    });

    // What the page suggests as a body is worth sending: whoever logs out with it is logged out.
    test("Try it out: log out with the body that is suggested", async () => {
      await logInOnPage();
      const logout = await openOperation(watched.page, ...LOGOUT);
      const suggested = JSON.parse(await suggestedBody(logout));
      expect({ suggested, status: (await execute(logout)).status }).toEqual({ suggested, status: "204" });

      const verify = await execute(await openOperation(watched.page, ...VERIFY));
      expect(verify.body.error.code).toBe("AUTH_TOKEN_REVOKED");
      await expectQuiet([VERIFY[1]]);
    });

    // The proof above counts because a request that does leave is seen.
    test("a request that leaves is seen by the tests", async () => {
      const page = await watched.page.context().newPage();
      await page.goto(`${ELSEWHERE}/seen`).catch(() => undefined);
      expect(watched.requests).toContain(`${ELSEWHERE}/seen`);
      expect(watched.sentAway).toContain(`GET ${ELSEWHERE}/seen HTTP/1.1`);
    });

    // On a phone the page fits its width, with an operation open.
    test("fits a phone", async () => {
      const { page } = watched;
      await page.setViewportSize({ width: 390, height: 844 });
      await openOperation(page, ...LOGIN);
      const widths = await page.evaluate(() => [
        document.documentElement.scrollWidth,
        document.documentElement.clientWidth,
      ]);
      expect(widths[0]).toBe(widths[1]);
      await expectQuiet();
    });
  });

  describe("the policy", () => {
    let watched: WatchedPage;
    beforeAll(async () => {
      watched = await browser.open();
      await loadDocs(watched.page, served.url);
    });
    afterAll(() => watched?.close());

    // Whatever text were smuggled into the page could run nothing, style nothing and send nothing away.
    test.each(SMUGGLED)("stops $what", async ({ directive, act }) => {
      const { page } = watched;
      const { length } = await watched.violations();
      await page.evaluate(act, ELSEWHERE);
      const stopped = await watched.violationsAfter(length);
      expect(stopped.map((violation) => violation.directive)).toEqual([directive]);
      expect(await page.evaluate(() => document.title)).not.toBe("taken");
      expect(watched.sentAway).toEqual([]);
    });
  });
});
