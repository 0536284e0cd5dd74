import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ENVIRONMENT_SETTING, SETTING_LIST } from "../../config/schema.ts";
import { runPrimer } from "../support/server.ts";
import { hashesOf, jsonOf, openScratch } from "./support/home.ts";

const CANARY = "c4n4ry-5ecret";
const scratch = openScratch();
let home: string;

beforeAll(async () => {
  home = await scratch.home();
  const secrets = join(home, "secrets.env");
  writeFileSync(secrets, `${readFileSync(secrets, "utf8")}SMTP_URL=smtps://user:${CANARY}@mail.example.org\n`);
});
afterAll(() => scratch.remove());

const config = (args: readonly string[], environment: Record<string, string> = {}) =>
  runPrimer(["config", ...args, "--dir", home], { environment });

/** Every form in which a secret of this home could be printed. */
const secretsOf = () =>
  readFileSync(join(home, "secrets.env"), "utf8")
    .split("\n")
    .filter((line) => /^PRIMER_/.test(line))
    .map((line) => line.slice(line.indexOf("=") + 1))
    .concat(CANARY);

describe("config check", () => {
  test("a good configuration is exit 0", async () => {
    const ran = await config(["check", "--json"]);
    expect(ran.exitCode).toBe(0);
    expect(jsonOf(ran)).toMatchObject({ ok: true, environment: "development", settings: SETTING_LIST.length + 1 });
  });

  test("a bad one is exit 2 and names every fault", async () => {
    const ran = await config(["check", "--json"], {
      PRIMER_SERVER__PORT: "x",
      PRIMER_NO__SUCH: "1",
      REDIS_URL: "redis",
    });
    expect(ran.exitCode).toBe(2);
    const { message } = jsonOf(ran).error;
    for (const key of ["server.port", "no.such", "redis.url"]) expect(message).toContain(`${key} (`);
  });

  // A secret that is missing or weak is a fault of the configuration.
  test.each([
    ["an empty master key", { PRIMER_MASTER_KEY: "" }],
    ["a short pepper", { PRIMER_PEPPER: "short" }],
  ])("%s is exit 2", async (_name, environment) => {
    expect((await config(["check"], environment)).exitCode).toBe(2);
  });
});

describe("config show", () => {
  test("has every setting with its value and its origin", async () => {
    const ran = await config(["show", "--json"], { PRIMER_SERVER__PORT: "9000" });
    expect(ran.exitCode).toBe(0);
    const shown = jsonOf(ran);
    expect(Object.keys(shown).sort()).toEqual([ENVIRONMENT_SETTING, ...SETTING_LIST].map(({ key }) => key).sort());
    expect(shown["server.port"]).toEqual({ value: "9000", origin: "environment PRIMER_SERVER__PORT" });
    expect(shown["tokens.access_ttl"]).toEqual({ value: "15m", origin: "default" });
    expect(shown["mail.smtp_url"]).toEqual({ value: "(set)", origin: "secrets.env SMTP_URL" });
  });
});

// What shows settings to people never shows a secret, wherever it was given.
test.each([
  [["show"]],
  [["show", "--json"]],
  [["check"]],
  [["explain", "mail.smtp_url"]],
  [["explain", "database.url", "--json"]],
])("config %j prints no secret", async (args) => {
  const environment = {
    DATABASE_URL: `postgres://u:${CANARY}@db/primer`,
    PRIMER_REDIS__URL: `redis://:${CANARY}@cache`,
    OTEL_EXPORTER_OTLP_ENDPOINT: `https://u:${CANARY}@collector.example.org`,
  };
  const ran = await config(args, environment);
  expect(ran.exitCode).toBe(0);
  for (const secret of secretsOf()) expect(ran.stdout + ran.stderr).not.toContain(secret);
});

describe("limits of single routes", () => {
  const ROUTES = { PRIMER_RATE_LIMITS__ROUTES: "GET /api/v1/clients 30/90s, POST /api/v1/clients off" };

  test("config show limits shows them with the routes that have them", async () => {
    const { routes } = jsonOf(await config(["show", "limits", "--json"], ROUTES)) as {
      routes: { route: string; limits: unknown }[];
    };
    const limitsOf = (name: string) => routes.find(({ route }) => route === name)?.limits;
    expect(limitsOf("GET /api/v1/clients")).toEqual({ route: "30/90s" });
    expect(limitsOf("POST /api/v1/clients")).toEqual({ route: "off" });
    expect(limitsOf("DELETE /api/v1/clients/:id")).toEqual({ general: "100/1m" });
  });

  test("config check refuses one of a route that there is not", async () => {
    expect((await config(["check"], ROUTES)).exitCode).toBe(0);
    const ran = await config(["check"], { PRIMER_RATE_LIMITS__ROUTES: "GET /api/v1/nowhere 3/1m" });
    expect(ran.exitCode).toBe(2);
    expect(ran.stderr).toContain("GET /api/v1/nowhere");
  });
});

describe("config explain", () => {
  test.each(["environment", "tokens.access_ttl", "rate_limits.login_ip", "server.trusted_proxies"])(
    "%s",
    async (key) => {
      const ran = await config(["explain", key, "--json"]);
      expect(ran.exitCode).toBe(0);
      const setting = [ENVIRONMENT_SETTING, ...SETTING_LIST].find((entry) => entry.key === key);
      expect(jsonOf(ran)).toMatchObject({
        key,
        sentence: setting?.sentence,
        expected: setting?.kind.expected,
        variable: setting?.variable,
      });
    },
  );

  test("names both variables where there are two", async () => {
    expect(jsonOf(await config(["explain", "database.url", "--json"])).variable).toBe(
      "PRIMER_DATABASE__URL or DATABASE_URL",
    );
  });

  // Somebody whose settings are wrong looks here for what they may be.
  test("explains a setting that is set to something wrong", async () => {
    const ran = await config(["explain", "server.port"], { PRIMER_SERVER__PORT: "x" });
    expect(ran.stdout + ran.stderr).toContain("65535");
  });
});

test("none of this changed the home", async () => {
  const before = hashesOf(home);
  await config(["show"]);
  expect(hashesOf(home)).toEqual(before);
});
