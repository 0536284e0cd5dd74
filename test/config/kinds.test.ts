import { describe, expect, test } from "bun:test";
import {
  color,
  duration,
  flag,
  integer,
  type Kind,
  locale,
  mailbox,
  matchesNetwork,
  networkList,
  oneOf,
  origin,
  originList,
  pageUrl,
  parseDuration,
  rate,
  routeRates,
  secureUrl,
  someOf,
  text,
  threatSources,
  timeOfDay,
  timeZone,
  url,
} from "../../config/kinds.ts";

interface KindCase {
  readonly name: string;
  readonly kind: Kind<unknown>;
  /** What is written, and what the program works with. */
  readonly good: readonly (readonly [raw: unknown, value: unknown])[];
  readonly bad: readonly unknown[];
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

const CASES: readonly KindCase[] = [
  {
    name: "duration from 1s to 1h",
    kind: duration("1s", "1h"),
    good: [
      ["1s", 1000],
      ["1000ms", 1000],
      ["15m", 15 * MINUTE],
      ["60m", HOUR],
      ["1h", HOUR],
      [" 10s ", 10_000],
    ],
    bad: ["999ms", "61m", "2h", "10", "s", "", "1.5m", "-1s", "1w", "1H", "1s1s", "99999999999s", 10, null, undefined],
  },
  {
    name: "rate",
    kind: rate,
    good: [
      ["5/1m", { limit: 5, windowMs: MINUTE }],
      ["5/m", { limit: 5, windowMs: MINUTE }],
      ["10/15m", { limit: 10, windowMs: 15 * MINUTE }],
      ["3/1h", { limit: 3, windowMs: HOUR }],
      ["off", null],
    ],
    bad: ["0/1m", "5/0m", "5", "/1m", "5/", "5/1", "-5/1m", "5/1w", "5 per minute", "OFF", "", 5, false, null],
  },
  {
    name: "time of day",
    kind: timeOfDay,
    good: [
      ["00:00", "00:00"],
      ["07:05", "07:05"],
      ["23:59", "23:59"],
    ],
    bad: ["24:00", "7:05", "07:60", "07:05:00", "07.05", " 07:05", "noon", "", 7, null, undefined],
  },
  {
    name: "list of routes' rates",
    kind: routeRates,
    good: [
      [[], new Map()],
      ["", new Map()],
      [
        ["GET /a 5/1m", "POST /a/:id off"],
        new Map([
          ["GET /a", { limit: 5, windowMs: MINUTE }],
          ["POST /a/:id", null],
        ]),
      ],
      [
        "GET /a 5/1m, PUT /b 1/1h",
        new Map([
          ["GET /a", { limit: 5, windowMs: MINUTE }],
          ["PUT /b", { limit: 1, windowMs: HOUR }],
        ]),
      ],
    ],
    bad: ["/a 5/1m", "GET a 5/1m", "GET /a", "GET /a 5", "TRACE /a 5/1m", ["GET /a 5/1m", ""].concat("x"), 5, null],
  },
  {
    name: "whole number from 1 to 10",
    kind: integer(1, 10),
    good: [
      [1, 1],
      ["10", 10],
      [" 7 ", 7],
    ],
    bad: [0, 11, "11", 1.5, "1.5", "1e1", "0x5", "-1", "", " ", Number.NaN, Number.POSITIVE_INFINITY, true, null, [1]],
  },
  {
    name: "true or false",
    kind: flag,
    good: [
      [true, true],
      [false, false],
      ["true", true],
      ["false", false],
    ],
    bad: ["yes", "1", 1, 0, "", "TRUE", null, undefined],
  },
  { name: "choice", kind: oneOf("lax", "strict"), good: [["lax", "lax"]], bad: ["Lax", "", "none", 1, null] },
  {
    name: "text of up to 5 characters",
    kind: text(5),
    good: [
      ["", ""],
      ["abcde", "abcde"],
      [" ab ", "ab"],
    ],
    bad: ["abcdef", 1, null, undefined, ["a"]],
  },
  {
    name: "URL",
    kind: url("postgres", "postgresql"),
    good: [
      ["", ""],
      ["postgres://a:b@db.example.org:5433/primer", "postgres://a:b@db.example.org:5433/primer"],
      ["postgresql://db/primer", "postgresql://db/primer"],
    ],
    bad: ["mysql://db/primer", "db:5432/primer", "postgres://", "postgres", "http://db", " ", 5432, null],
  },
  {
    name: "URL that is safe on the way",
    kind: secureUrl,
    good: [
      ["https://api.example.org", "https://api.example.org"],
      ["https://mirror.example.org:8443/hibp/", "https://mirror.example.org:8443/hibp"],
      ["http://127.0.0.1:8080", "http://127.0.0.1:8080"],
      ["http://localhost/mirror", "http://localhost/mirror"],
      ["http://[::1]:8080", "http://[::1]:8080"],
    ],
    bad: [
      "http://api.example.org",
      "http://127.0.0.1.example.org",
      "http://localhost.example.org",
      "http://10.0.0.1",
      "https://user:password@api.example.org",
      "https://api.example.org/?q=1",
      "https://api.example.org/#top",
      "ftp://api.example.org",
      "file:///etc/passwd",
      "api.example.org",
      "",
      1,
      null,
    ],
  },
  {
    name: "list of some of the known",
    kind: someOf("letter", "digit"),
    good: [
      ["", []],
      [[], []],
      ["digit", ["digit"]],
      ["digit, letter", ["letter", "digit"]],
      [["letter"], ["letter"]],
    ],
    bad: ["digits", ["Digit"], ["digit", "digit"], ["digit", 1], {}, true, null],
  },
  {
    name: "mailbox",
    kind: mailbox,
    good: [
      ["", null],
      ["login@example.org", { name: "", address: "login@example.org" }],
      ["Bücher, Inc <login@example.org>", { name: "Bücher, Inc", address: "login@example.org" }],
      [" <login@example.org> ", { name: "", address: "login@example.org" }],
    ],
    bad: [
      "login",
      "a@b@c",
      "A <a@b> <c@d>",
      "A\r\nBcc: x <a@b>",
      "a@b\r\nBcc: x@y",
      '"A" <a@b>',
      "A a@b",
      5,
      undefined,
    ],
  },
  {
    name: "list of sources",
    kind: threatSources,
    good: [
      ["", []],
      [
        "https://lists.example.org/bad.txt?key=1,lists/own.txt",
        [
          {
            written: "https://lists.example.org/bad.txt?key=1",
            location: "https://lists.example.org/bad.txt?key=1",
            proof: "none",
          },
          { written: "lists/own.txt", location: "lists/own.txt", proof: "none" },
        ],
      ],
      [
        ["sha256+http://127.0.0.1:8080/bad.txt", "minisign+/etc/bad.txt"],
        [
          {
            written: "sha256+http://127.0.0.1:8080/bad.txt",
            location: "http://127.0.0.1:8080/bad.txt",
            proof: "sha256",
          },
          { written: "minisign+/etc/bad.txt", location: "/etc/bad.txt", proof: "minisign" },
        ],
      ],
    ],
    bad: [
      "http://lists.example.org/bad.txt",
      "http://10.0.0.1/bad.txt",
      "ftp://lists.example.org/bad.txt",
      "file:///etc/passwd",
      "sha256+file:///etc/passwd",
      "https://user:password@lists.example.org/bad.txt",
      "https://lists.example.org/bad.txt#x",
      "https://",
      "sha256+",
      Array(33).fill("a.txt"),
      5,
      undefined,
    ],
  },
  {
    name: "page",
    kind: pageUrl,
    good: [
      ["", ""],
      ["https://app.example.org/verify?lang=en", "https://app.example.org/verify?lang=en"],
      ["http://localhost:3000/verify", "http://localhost:3000/verify"],
    ],
    bad: [
      "http://app.example.org/",
      "https://a@app.example.org/",
      "https://app.example.org/#x",
      "/verify",
      "javascript:1",
    ],
  },
  {
    name: "colour",
    kind: color,
    good: [["#1F5f8b", "#1f5f8b"]],
    bad: ["red", "#fff", "1f5f8b", "#1f5f8b;x", "", undefined],
  },
  {
    name: "locale",
    kind: locale,
    good: [
      ["en", "en"],
      ["de-at", "de-AT"],
    ],
    bad: ["", "../etc", "e", "de_AT", 1, undefined],
  },
  {
    name: "time zone",
    kind: timeZone,
    good: [
      ["UTC", "UTC"],
      ["Europe/Vienna", "Europe/Vienna"],
    ],
    bad: ["", "Vienna", "Europe/Nowhere", 1, undefined],
  },
  {
    name: "origin",
    kind: origin,
    good: [
      ["", ""],
      ["https://login.example.org", "https://login.example.org"],
      ["http://127.0.0.1:8080", "http://127.0.0.1:8080"],
      ["http://[::1]:8080", "http://[::1]:8080"],
    ],
    bad: [
      "https://login.example.org/",
      "https://login.example.org/path",
      "https://login.example.org?q=1",
      "https://user:password@login.example.org",
      "https://Login.example.org",
      "https://login.example.org:443",
      "ftp://login.example.org",
      "javascript:alert(1)",
      "login.example.org",
      "null",
      "*",
      1,
    ],
  },
  {
    name: "list of origins",
    kind: originList,
    good: [
      [[], []],
      ["", []],
      [["https://app.example.org"], ["https://app.example.org"]],
      ["https://a.example.org, https://b.example.org", ["https://a.example.org", "https://b.example.org"]],
    ],
    bad: ["*", ["*"], ["https://app.example.org", "*"], ["https://*.example.org"], ["null"], [1], {}, true],
  },
  {
    name: "list of networks",
    kind: networkList,
    good: [
      [[], []],
      [["10.0.0.0/8"], ["10.0.0.0/8"]],
      ["192.0.2.7,::1", ["192.0.2.7", "::1"]],
      [["2001:db8::/32"], ["2001:db8::/32"]],
      [["0.0.0.0/0"], ["0.0.0.0/0"]],
    ],
    bad: [
      ["10.0.0.0/33"],
      ["::/129"],
      ["10.0.0/8"],
      ["256.0.0.1"],
      ["10.0.0.0/"],
      ["10.0.0.0/-1"],
      ["10.0.0.0/8/9"],
      ["proxy.example.org"],
      "all",
      [10],
      { 0: "10.0.0.0/8" },
    ],
  },
];

describe.each(CASES.map((entry) => [entry.name, entry] as const))("a setting that is a %s", (_name, entry) => {
  const { kind, good, bad } = entry;
  test.each(good.map(([raw, value]) => [JSON.stringify(raw), raw, value]))("takes %s", (_text, raw, value) => {
    expect(kind.parse(raw)).toEqual(value);
  });

  // What does not fit is refused, never bent into something that does.
  test.each(bad.map((raw) => [JSON.stringify(raw) ?? "undefined", raw]))("refuses %s", (_text, raw) => {
    expect(kind.parse(raw)).toBeUndefined();
  });

  test("says what it expects", () => {
    expect(kind.expected).not.toBe("");
  });
});

test.each([
  ["500ms", 500],
  ["0s", 0],
  ["1d", 24 * HOUR],
  ["30d", 30 * 24 * HOUR],
])("the duration %s is %d milliseconds", (written, ms) => {
  expect(parseDuration(written)).toBe(ms);
});

describe("an address in a list of networks", () => {
  const NETWORKS = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"];

  // Only an address that is in a trusted network counts as a proxy's, however it is written.
  test.each([
    ["10.1.2.3", true],
    ["10.255.255.255", true],
    ["11.0.0.0", false],
    ["9.255.255.255", false],
    ["192.0.2.7", true],
    ["192.0.2.8", false],
    ["::ffff:10.1.2.3", true],
    ["::FFFF:10.1.2.3", true],
    ["::ffff:11.1.2.3", false],
    ["2001:db8:ffff::1", true],
    ["2001:db9::1", false],
    ["::1", true],
    ["::2", false],
    ["", false],
    ["10.1.2", false],
    ["localhost", false],
  ])("%s: %p", (address, inside) => {
    expect(matchesNetwork(NETWORKS)(address)).toBe(inside);
  });

  test("an empty list has no address in it", () => {
    expect(matchesNetwork([])("127.0.0.1")).toBe(false);
  });

  // Whatever the check of the settings lets through must not stop the service when the first request arrives.
  test.each(["10.0.0.0/8", "0.0.0.0/0", "::/0", "192.0.2.7", "fe80::1%eth0"])(
    "%s is refused or can be used",
    (item) => {
      const accepted = networkList.parse([item]);
      expect(() => matchesNetwork(accepted ?? [])("192.0.2.7")).not.toThrow();
    },
  );
});
