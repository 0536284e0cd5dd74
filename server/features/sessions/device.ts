import Bowser from "bowser";

const UNKNOWN = "Unknown device";
const BROWSERS: ReadonlySet<string> = new Set(Object.values(Bowser.BROWSER_MAP));
/** The first product of a User-Agent header (RFC 9110, section 10.1.5): "curl/8.5.0". */
const PRODUCT = /^([A-Za-z][\w.+-]{0,39})(?:\/(\d{1,6}))?/;

/**
 * A User-Agent header in words that people understand, such as "Firefox 128 on Linux". Whoever logs in writes that header,
 * so of one that is no browser's only a short name without spaces is shown.
 */
export function deviceOf(userAgent: string | null): string {
  if (!userAgent?.trim()) return UNKNOWN;
  const { browser, os } = Bowser.parse(userAgent);
  const program = BROWSERS.has(browser.name ?? "")
    ? [browser.name, majorOf(browser.version)].filter(Boolean).join(" ")
    : productOf(userAgent);
  return [program, os.name].filter(Boolean).join(" on ") || UNKNOWN;
}

const majorOf = (version: string | undefined) => /^\d{1,6}/.exec(version ?? "")?.[0];

function productOf(userAgent: string): string {
  const [, name = "", major] = PRODUCT.exec(userAgent) ?? [];
  if (name === "Mozilla") return "";
  return major === undefined ? name : `${name} ${major}`;
}
