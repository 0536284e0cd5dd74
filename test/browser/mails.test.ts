/**
 * Every mail as a browser shows it: light, dark and on a phone. With MAIL_PICTURES=FOLDER pictures of all of them are kept
 * to be looked at.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { renderMail } from "../../worker/mail/render.ts";
import { COMMON_SAMPLES, MAIL_TEMPLATES, SAMPLES } from "../../worker/mail/samples.ts";
import { findTemplate } from "../../worker/mail/templates.ts";
import { findChromium } from "./support/chromium.ts";

const LINK = `https://login.example.org/account/end-session#token=${"k7Qz".repeat(10)}abc`;
const pictures = process.env.MAIL_PICTURES;
const executablePath = findChromium();
if (!executablePath) process.stdout.write("Left out: mails in a browser, since this machine has no Chromium\n");

const LOOKS = [
  { look: "light", colorScheme: "light", width: 800 },
  { look: "dark", colorScheme: "dark", width: 800 },
  { look: "phone", colorScheme: "light", width: 360 },
] as const;

function htmlOf(name: (typeof MAIL_TEMPLATES)[number], color = "#1f5f8b"): string {
  const files = findTemplate("/nonexistent", "en", name, () => {});
  const values = { ...COMMON_SAMPLES, ...SAMPLES[name] };
  const style = { product: "Example Accounts", color, logo: undefined, locale: "en" };
  return renderMail({ ...files, values: { ...values, product: style.product }, link: LINK, several: true }, style).html;
}

describe.skipIf(!executablePath)("mails", () => {
  let browser: Browser;
  let page: Page;
  const requests: string[] = [];
  beforeAll(async () => {
    browser = await chromium.launch({
      executablePath: executablePath ?? "",
      args: ["--headless", "--no-sandbox", "--disable-gpu"],
    });
    page = await browser.newPage();
    page.on("request", (request) => void requests.push(request.url()));
  });
  afterAll(() => browser?.close());

  async function show(html: string, { colorScheme, width }: { colorScheme: "light" | "dark"; width: number }) {
    await page.setViewportSize({ width, height: 900 });
    await page.emulateMedia({ colorScheme });
    await page.setContent(html);
  }

  // Everybody can read every mail: 4.5 to 1 everywhere (WCAG 2.2, 1.4.3), in the width of whatever it is read on.
  describe.each([...LOOKS])("$look", (as) => {
    test.each([...MAIL_TEMPLATES])("%s", async (name) => {
      await show(htmlOf(name), as);
      const seen = await page.evaluate(readPage);
      expect(seen.unreadable).toEqual([]);
      expect(seen.texts).toBeGreaterThan(4);
      expect(seen.overflow).toBe(0);
      expect(seen.cardWidth).toBeLessThanOrEqual(600);
      if (pictures) await page.screenshot({ path: join(pictures, `${name}-${as.look}.png`), fullPage: true });
    });
  });

  // Whatever colour an installation chooses, its button can be read.
  test.each(["#ffffff", "#000000", "#ffd400", "#777777", "#d32f2f", "#00bcd4"])("a button in %s", async (color) => {
    for (const as of LOOKS) {
      await show(htmlOf("new_sign_in", color), as);
      expect((await page.evaluate(readPage)).unreadable).toEqual([]);
    }
  });

  // A mail tells nobody that it was opened.
  test("asks nobody for anything", () => {
    expect(requests.filter((url) => !url.startsWith("data:") && !url.startsWith("about:"))).toEqual([]);
  });
});

/** Runs in the page: what cannot be read of the texts that are there, and whether it is too wide. */
function readPage() {
  const luminance = (color: string) => {
    const [r = 0, g = 0, b = 0] = (color.match(/[\d.]+/g) ?? []).slice(0, 3).map((part) => {
      const value = Number(part) / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const backgroundOf = (start: Element): string => {
    for (let element: Element | null = start; element; element = element.parentElement) {
      const { backgroundColor } = getComputedStyle(element);
      if (!/^rgba\(.*, 0\)$/.test(backgroundColor)) return backgroundColor;
    }
    return "rgb(255, 255, 255)";
  };
  const unreadable: string[] = [];
  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent?.trim();
    if (!element || !text || element.getClientRects().length === 0) continue;
    texts++;
    const [one, other] = [luminance(getComputedStyle(element).color), luminance(backgroundOf(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) unreadable.push(`${contrast.toFixed(2)}: ${text}`);
  }
  const { scrollWidth, clientWidth } = document.documentElement;
  const cardWidth = Math.round(document.querySelector(".box")?.getBoundingClientRect().width ?? 9999);
  return { unreadable, texts, overflow: scrollWidth - clientWidth, cardWidth };
}
