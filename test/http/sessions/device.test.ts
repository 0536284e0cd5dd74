import { describe, expect, test } from "bun:test";
import { deviceOf } from "../../../server/features/sessions/device.ts";

const WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)";
const NAMES: Readonly<Record<string, string>> = {
  "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0": "Firefox 128 on Linux",
  [`Mozilla/5.0 (Windows NT 10.0; Win64; x64) ${WEBKIT} Chrome/126.0.0.0 Safari/537.36`]: "Chrome 126 on Windows",
  [`Mozilla/5.0 (Windows NT 10.0; Win64; x64) ${WEBKIT} Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0`]:
    "Microsoft Edge 126 on Windows",
  [`Mozilla/5.0 (Linux; Android 14; Pixel 8) ${WEBKIT} Chrome/126.0.0.0 Mobile Safari/537.36`]: "Chrome 126 on Android",
  "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1":
    "Safari 17 on iOS",
  "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15":
    "Safari 17 on macOS",
  "curl/8.5.0": "curl 8",
  "python-requests/2.31": "python-requests 2",
  "PostmanRuntime/7.39.0": "PostmanRuntime 7",
  "Mozilla/5.0": "Unknown device",
  "Mozilla/5.0 (X11; Linux x86_64)": "Linux",
  "": "Unknown device",
  "   ": "Unknown device",
  "/": "Unknown device",
  "☃": "Unknown device",
};

describe("the device of a User-Agent header", () => {
  for (const [userAgent, name] of Object.entries(NAMES)) {
    test(`${name}: ${userAgent.slice(0, 60)}`, () => expect(deviceOf(userAgent)).toBe(name));
  }

  test("none", () => expect(deviceOf(null)).toBe("Unknown device"));

  // Whoever logs in writes the header: it puts no sentences, markup or control characters before the owner's eyes.
  test.each([
    "<script>alert(1)</script>/1 (x)",
    "Your account is locked, call +1 555/1 (x)",
    "\u001b[31mred/1 (Linux)",
    "__proto__/1 x",
    "a\nb/1 c",
    `Chrome/${"9".repeat(400)}`,
  ])("%j", (userAgent) => {
    expect(deviceOf(userAgent)).toMatch(/^[\w.+-]{0,40}( \w+){0,4}$/);
    expect(deviceOf(userAgent).length).toBeLessThan(70);
  });

  // However the header is made up, it is read in no time: a page of sessions holds 200 of them.
  test("takes bounded time", () => {
    const pieces = ["(", " ", "a", "Mozilla/5.0 ", "Version/1 ", ";", "Android ", "/", "Linux; "];
    const began = performance.now();
    for (const piece of pieces) deviceOf(piece.repeat(512).slice(0, 512));
    expect(performance.now() - began).toBeLessThan(100);
  });
});
