/**
 * A real Chromium whose pages are watched: what they ask for, what they complain about, and what the browser forbids
 * them. Whatever would leave this machine ends in a proxy that writes it down and lets nothing through.
 */
import { createServer } from "node:net";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";

/**
 * Quiet: a browser that talks to its maker would be seen in the proxy and taken for the page. The last one is where it
 * asks how to fill in forms; nobody listens there.
 */
const ARGUMENTS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--autofill-server-url=http://127.0.0.1:9/",
];

/** Names that distributions give Chromium, and the one that Google's packages have. */
const NAMES = ["chromium", "chromium-browser", "google-chrome"];

/** Where this machine has a Chromium; undefined where it has none. */
export const findChromium = (): string | undefined =>
  NAMES.map((name) => Bun.which(name)).find((path) => path !== null) ?? undefined;

export interface Violation {
  readonly directive: string;
  readonly blocked: string;
}

export interface ConsoleError {
  readonly text: string;
  /** The resource that it is about, such as the address that answered 401. */
  readonly url: string;
}

export interface WatchedPage {
  readonly page: Page;
  /** Every address that was asked for, data: addresses aside, which ask nobody. */
  readonly requests: readonly string[];
  /** The first line of whatever was sent to another machine. */
  readonly sentAway: readonly string[];
  readonly consoleErrors: readonly ConsoleError[];
  /** What the Content-Security-Policy forbade since the page was loaded. */
  violations(): Promise<readonly Violation[]>;
  /** Those beyond the first ones, as soon as there is one; none where none comes within some seconds. */
  violationsAfter(count: number): Promise<readonly Violation[]>;
  close(): Promise<void>;
}

export interface WatchedBrowser {
  /** A page of a profile of its own: no cookies, no storage, no cache. */
  open(): Promise<WatchedPage>;
  close(): Promise<void>;
}

export async function launchChromium(executablePath: string): Promise<WatchedBrowser> {
  const browser = await chromium.launch({ executablePath, args: ARGUMENTS });
  return {
    open: () => openPage(browser),
    close: () => browser.close(),
  };
}

async function openPage(browser: Browser): Promise<WatchedPage> {
  const proxy = await startRefusingProxy();
  // The server under test is reached directly.
  const context = await browser.newContext({
    viewport: { width: 1280, height: 900 },
    proxy: { server: proxy.url, bypass: "127.0.0.1" },
  });
  const { requests, consoleErrors } = watch(context);
  await context.addInitScript(keepViolations);
  const page = await context.newPage();
  return {
    page,
    requests,
    sentAway: proxy.seen,
    consoleErrors,
    violations: () => page.evaluate(keptViolations),
    async violationsAfter(count) {
      await page.waitForFunction(moreViolations, count, { timeout: 5000 }).catch(() => undefined);
      return (await page.evaluate(keptViolations)).slice(count);
    },
    async close() {
      await context.close();
      proxy.stop();
    },
  };
}

function watch(context: BrowserContext) {
  const requests: string[] = [];
  const consoleErrors: ConsoleError[] = [];
  context.on("request", (request) => {
    if (!request.url().startsWith("data:")) requests.push(request.url());
  });
  context.on("console", (message) => {
    if (message.type() === "error") consoleErrors.push({ text: message.text(), url: message.location().url });
  });
  context.on("weberror", (thrown) => consoleErrors.push({ text: thrown.error().message, url: "" }));
  return { requests, consoleErrors };
}

type WithViolations = Window & { violations?: Violation[] };

// These three run inside the page, the first one before anything of the page's own.
function keepViolations(): void {
  const kept: Violation[] = [];
  Object.assign(window, { violations: kept });
  document.addEventListener("securitypolicyviolation", (event) =>
    kept.push({ directive: event.effectiveDirective, blocked: event.blockedURI }),
  );
}

const keptViolations = (): Violation[] => (window as WithViolations).violations ?? [];
const moreViolations = (count: number): boolean => ((window as WithViolations).violations?.length ?? 0) > count;

/** Answers 502 to everything and remembers its first line. */
async function startRefusingProxy() {
  const seen: string[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    socket.once("data", (head) => {
      seen.push(head.toString("latin1").split("\r\n", 1)[0] ?? "");
      socket.end("HTTP/1.1 502 Refused by the test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const address = server.address();
  const port = typeof address === "object" && address ? address.port : 0;
  return { url: `http://127.0.0.1:${port}`, seen, stop: () => void server.close() };
}
