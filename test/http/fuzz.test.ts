import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Operation } from "./support/contract.ts";
import { type HttpApp, openHttpApp } from "./support/http-app.ts";
import type { Schema } from "./support/json-schema.ts";
import { type SeededRandom, seededRandom } from "./support/random.ts";

const FULL = Boolean(process.env.TEST_FULL);
const REQUESTS = FULL ? 10_000 : 500;
/** Printed on failure; set FUZZ_SEED to run the same requests again. */
const SEED = Number(process.env.FUZZ_SEED ?? 20_260_301);
if (!FULL) console.log(`Fuzzing with ${REQUESTS} requests; the full form sends 10,000.`);

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp();
  await app.createUser({ username: "ada" });
});
afterAll(() => app.close());

/** Texts that have broken something somewhere. */
const NASTY = [
  "",
  " ",
  "\u0000",
  "a\u0000b",
  "\ud800",
  "\u{1f40e}".repeat(50),
  "\u202e\u200b\ufeff",
  "' OR 1=1--",
  "\\",
  "%00",
  "%",
  "$\u007b7*7}",
  "../../../etc/passwd",
  "<script>alert(1)</script>",
  "a".repeat(400),
  "ada",
  "ada@example.test",
  "ＡＤＡ",
  "ada\u0301",
  "null",
  "-1",
  "1e400",
  "019ca945-0a00-7000-8000-000000000000",
  "a.b.c",
  "a..b.c.d",
  "__proto__",
];

const WEIRD: readonly unknown[] = [null, true, 0, -1, 1.5, 1e308, "", "x", [], [[]], {}, { a: {} }, NASTY, [null]];

/** A value that mostly fits a schema, and sometimes does not at all. */
function valueFor(schema: Schema, random: SeededRandom): unknown {
  if (random.next() < 0.15) return random.pick(WEIRD);
  if (schema.type === "boolean") return random.next() < 0.5;
  if (schema.type === "integer" || schema.type === "number") return random.pick([0, 1, -1, 2 ** 31, 2 ** 53, 1.5]);
  if (schema.type === "array")
    return Array.from({ length: random.below(4) }, () => valueFor((schema.items ?? {}) as Schema, random));
  if (schema.type === "object") {
    const entries = Object.entries((schema.properties ?? {}) as Record<string, Schema>)
      .filter(() => random.next() < 0.85)
      .map(([name, inner]) => [name, valueFor(inner, random)]);
    if (random.next() < 0.1) entries.push([random.pick(NASTY), random.pick(WEIRD)]);
    return Object.fromEntries(entries);
  }
  return random.next() < 0.1 ? random.pick(NASTY) + random.pick(NASTY) : random.pick(NASTY);
}

/** A text with some of its characters changed, left out or doubled. */
function mangle(text: string, random: SeededRandom): string {
  const at = random.below(Math.max(1, text.length));
  return random.pick([
    text.slice(0, at),
    text + text,
    text.slice(0, at) + random.pick(NASTY) + text.slice(at),
    text.slice(0, at) + text.slice(at + 1),
    `[${text}]`,
  ]);
}

const TYPES = [...Array<string>(12).fill("application/json"), "application/json; charset=utf-8", "text/plain", "", "x"];

interface Call {
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body?: string;
}

/** Header values are bytes on the wire: what cannot be one is left out. */
const headerSafe = (text: string) => text.replace(/[^\t\x20-\x7e\x80-\xff]/g, "");

function headersFor(random: SeededRandom, tokens: readonly string[]): Record<string, string> {
  const headers: Record<string, string> = {};
  const maybe = (name: string, value: string) => {
    if (random.next() < 0.3) headers[name] = headerSafe(value);
  };
  maybe("authorization", `${random.pick(["Bearer", "bearer", "Basic", ""])} ${random.pick([...tokens, ...NASTY])}`);
  maybe("authorization", `Bearer ${mangle(random.pick(tokens), random)}`);
  maybe("x-request-id", random.pick(NASTY));
  maybe("x-forwarded-for", random.pick(NASTY));
  maybe("user-agent", random.pick(NASTY));
  maybe("origin", random.pick(["null", "https://evil.test", ...NASTY]));
  maybe("if-none-match", random.pick(["*", '"x"', ...NASTY]));
  if (random.next() < 0.05) headers["content-length"] = random.pick(["0", "-1", "x", "99999999"]);
  maybe("cookie", `a=${random.pick(NASTY)}`);
  return headers;
}

function callFor(
  routes: readonly { method: string; path: string; operation: Operation }[],
  random: SeededRandom,
  tokens: readonly string[],
): Call {
  const withBody = routes.filter(({ operation }) => operation.requestBody);
  const route = random.pick(random.next() < 0.5 ? withBody : routes);
  const method =
    random.next() < 0.05 ? random.pick(["PUT", "PATCH", "DELETE", "OPTIONS", "POST", "GET"]) : route.method;
  const names = [...(route.operation.parameters ?? []).map(({ name }) => name), "x", "access_token"];
  const parameters = Array.from({ length: random.pick([0, 0, 0, 1, 1, 2]) }, () => {
    const value = random.pick(NASTY);
    return `${random.pick(names)}=${random.next() < 0.8 ? encodeURIComponent(value.toWellFormed()) : "%ff%"}`;
  });
  const query = parameters.length > 0 ? `?${parameters.join("&")}` : "";
  const path = route.path.replace(/\{[^}]+\}/g, () => encodeURIComponent(random.pick(NASTY).toWellFormed()));
  const headers = headersFor(random, tokens);
  const schema = route.operation.requestBody?.content["application/json"]?.schema;
  if (!schema || method === "GET" || random.next() < 0.05) return { method, path: path + query, headers };
  const value = valueFor(schema, random) as Record<string, unknown> | null;
  const known = random.next() < 0.3 && value && typeof value === "object" && "refresh_token" in value;
  const json = JSON.stringify(known ? { ...value, refresh_token: random.pick(tokens) } : value);
  const body = random.next() < 0.15 ? mangle(json, random) : json;
  return { method, path: path + query, body, headers: { "content-type": random.pick(TYPES), ...headers } };
}

describe("fuzzing", () => {
  // No request, however odd, makes us fail: the client's faults are 4xx, every answer keeps the contract, and afterwards
  // all is as before.
  test(
    `${REQUESTS} requests without a 5xx`,
    async () => {
      const random = seededRandom(SEED);
      const routes = Object.entries(app.document.paths).flatMap(([path, operations]) =>
        Object.entries(operations).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
      );
      const { access_token, refresh_token } = await app.login("ada");
      const failures: string[] = [];
      const statuses = new Map<number, number>();
      for (let index = 0; index < REQUESTS; index++) {
        app.clock.advance(Date.now() - app.clock.now().getTime()); // readiness compares the clock with the database's
        const { method, path, headers, body } = callFor(routes, random, [access_token, refresh_token]);
        const answer = await app
          .request(method, path, { headers, ...(body === undefined ? {} : { body }) })
          .catch((error: Error) => ({ status: 599, text: error.message }));
        statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
        if (answer.status >= 500)
          failures.push(`${method} ${path} ${JSON.stringify({ headers, body })} → ${answer.text}`);
      }
      expect({ seed: SEED, failures: failures.slice(0, 10) }).toEqual({ seed: SEED, failures: [] });
      for (const status of [200, 400, 401, 405, 415, 422]) expect(statuses.get(status) ?? 0).toBeGreaterThan(0);
      expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
      expect((await app.login("ada")).access_token).not.toBe("");
    },
    FULL ? 900_000 : 120_000,
  );
});
