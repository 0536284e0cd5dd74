import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { generateSecret } from "../../config/secrets.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { createPostgresDatabase } from "../support/database.ts";
import { runPrimer } from "../support/server.ts";
import { ADMIN, hashesOf, jsonOf, openScratch, when } from "./support/home.ts";
import { login, type Serving, serve } from "./support/serve.ts";

const scratch = openScratch();
const at = (name: string) => join(scratch.folder, name);
const ENVIRONMENT = { PRIMER_TOKENS__ALGORITHM: "ES256" };

let home: string;
let serving: Serving;
let before: { access_token: string; refresh_token: string };
let after: typeof before;

const run = (...words: string[]) => runPrimer(words, { cwd: scratch.folder, environment: ENVIRONMENT });
const withPassphrase = (...words: string[]) => run(...words, "--passphrase-file", "passphrase");
const restore = (file: string, ...words: string[]) => withPassphrase("restore", file, "--yes", "--json", ...words);

async function statusOf(url: string, path: string, tokens: typeof before): Promise<number> {
  const isVerify = path === "verify";
  const response = await fetch(`${url}/api/v1/auth/${path}`, {
    method: isVerify ? "GET" : "POST",
    headers: isVerify ? { authorization: `Bearer ${tokens.access_token}` } : { "content-type": "application/json" },
    ...(isVerify ? {} : { body: JSON.stringify({ refresh_token: tokens.refresh_token }) }),
  });
  return response.status;
}

beforeAll(async () => {
  home = await scratch.home();
  writeFileSync(at("passphrase"), "a passphrase of enough length\n");
  copyFileSync(join(home, "secrets.env"), at("safe.env"));
  serving = await serve(home, { environment: ENVIRONMENT });
  before = (await login(serving.url, ADMIN.username, ADMIN.password)).body;
});
afterAll(async () => {
  await serving.stop();
  scratch.remove();
});

// The process that has the embedded database takes the backup, into the folder that the caller stands in.
describe("while it serves", () => {
  test("backup writes the file that was named and leaves nothing else", async () => {
    const ran = await withPassphrase("backup", "day.backup", "--dir", home, "--json");
    expect(ran).toMatchObject({ exitCode: 0 });
    const { file, rows, bytes, sha256, tables } = jsonOf(ran);
    expect(file).toBe(at("day.backup"));
    expect(new Bun.CryptoHasher("sha256").update(readFileSync(at("day.backup"))).digest("hex")).toBe(sha256);
    expect([bytes, tables["public.users"]]).toEqual([Bun.file(at("day.backup")).size, 1]);
    expect(rows).toBeGreaterThan(5);
    expect(readdirSync(scratch.folder).filter((name) => name.includes("partial"))).toEqual([]);
    expect(readdirSync(home).filter((name) => name.includes("snapshot"))).toEqual([]);
    expect(readFileSync(at("day.backup")).includes(readFileSync(at("safe.env"), "utf8").slice(-30))).toBe(false);
  });

  test("backup --verify proves it by a login, touches nothing of ours, and is remembered", async () => {
    const ran = await withPassphrase("backup", "--verify", "day.backup", "--dir", home, "--json");
    expect(ran).toMatchObject({ exitCode: 0 });
    expect(jsonOf(ran)).toMatchObject({ verified: true, recorded: true, file: at("day.backup") });
    expect(jsonOf(await run("users", "list", "--dir", home, "--json")).data).toHaveLength(1);
    const { findings } = jsonOf(await run("doctor", "--dir", home, "--json"));
    expect(findings).toContainEqual(expect.objectContaining({ check: "backups", state: "ok" }));
  });

  test("nothing is restored over it: exit 3", async () => {
    after = (await login(serving.url, ADMIN.username, ADMIN.password)).body;
    const ran = await restore("day.backup", "--dir", home, "--force");
    expect(ran.exitCode).toBe(3);
    expect(await statusOf(serving.url, "verify", after)).toBe(200);
    await serving.stop();
  });
});

describe("restore refuses before it touches anything", () => {
  const changes: [string, number, () => string[]][] = [
    ["without --yes and a terminal", 2, () => ["day.backup"]],
    ["without a passphrase", 2, () => ["day.backup", "--yes"]],
    ["with another passphrase", 2, () => ["day.backup", "--yes", "--passphrase-file", "wrong"]],
    ["with a passphrase that is too short", 2, () => ["day.backup", "--yes", "--passphrase-file", "short"]],
    ["without such a file", 2, () => ["none.backup", "--yes", "--passphrase-file", "passphrase"]],
    ["a byte changed", 1, () => ["flipped.backup", "--yes", "--passphrase-file", "passphrase"]],
    [
      "with the secrets of another installation",
      2,
      () => ["day.backup", "--yes", "--passphrase-file", "passphrase", "--secrets", "other.env", "--dir", at("fresh")],
    ],
    ["without any secrets", 2, () => ["day.backup", "--yes", "--passphrase-file", "passphrase", "--dir", at("fresh")]],
  ];
  test.each(changes)("%s: exit %i", async (_, exitCode, words) => {
    writeFileSync(at("wrong"), "another passphrase of enough length\n");
    writeFileSync(at("short"), "short\n");
    const secret = () => generateSecret(systemRandom.bytes);
    writeFileSync(at("other.env"), `PRIMER_MASTER_KEY=${secret()}\nPRIMER_PEPPER=${secret()}\n`);
    const bytes = readFileSync(at("day.backup"));
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 4;
    writeFileSync(at("flipped.backup"), bytes);
    const held = hashesOf(home);
    const given = words();
    const ran = await run("restore", ...given, "--json", ...(given.includes("--dir") ? [] : ["--dir", home]));
    expect(ran.exitCode).toBe(exitCode);
    expect(jsonOf(ran).error.exit_code).toBe(exitCode);
    expect(hashesOf(home)).toEqual(held);
    expect(existsSync(join(at("fresh"), "pgdata"))).toBe(false);
    expect(existsSync(join(at("fresh"), "secrets.env"))).toBe(false);
  });

  test("an installation that is there, unless --force is given", async () => {
    const ran = await restore("day.backup", "--dir", home);
    expect(ran.exitCode).toBe(1);
    expect(jsonOf(ran).error.hint).toContain("--force");
  });
});

// Everything is gone but the backup and the copy of secrets.env; everybody logs in again with their password.
describe("on a clean machine", () => {
  async function expectRestored(place: string): Promise<void> {
    const restored = await serve(place, { environment: ENVIRONMENT });
    try {
      for (const tokens of [before, after]) {
        expect(await statusOf(restored.url, "verify", tokens)).toBe(401);
        expect(await statusOf(restored.url, "refresh", tokens)).toBe(401);
      }
      const tokens = (await login(restored.url, ADMIN.username, ADMIN.password)).body;
      expect(await statusOf(restored.url, "refresh", tokens)).toBe(200);
      expect((await run("rotate-keys", "--now", "--yes", "--dir", place)).exitCode).toBe(0);
      expect((await run("rotate-keys", "--what", "master,pepper", "--dir", place)).exitCode).toBe(0);
      expect((await login(restored.url, ADMIN.username, ADMIN.password)).status).toBe(200);
    } finally {
      await restored.stop();
    }
  }

  test("into a new home, and the same again changes nothing", async () => {
    const place = at("new");
    const words = ["--dir", place, "--secrets", "safe.env"];
    expect(jsonOf(await restore("day.backup", ...words))).toMatchObject({ changed: true });
    expect(jsonOf(await restore("day.backup", ...words))).toMatchObject({ changed: false });
    expect(readFileSync(join(place, "primer.toml"), "utf8")).toBe(readFileSync(join(home, "primer.toml"), "utf8"));
    await expectRestored(place);
  });

  test("over what is there with --force, whatever it had become", async () => {
    const place = await scratch.home("other");
    expect((await run("users", "disable", "admin", "--dir", place)).exitCode).not.toBe(0);
    expect(jsonOf(await restore("day.backup", "--dir", place, "--force"))).toMatchObject({ changed: true });
    expect(jsonOf(await run("users", "list", "--dir", place, "--json")).data).toHaveLength(1);
    expect(readdirSync(place).filter((name) => /restor|replaced|snapshot|\.new/.test(name))).toEqual([]);
  });

  const hasPostgres = when(process.env.TEST_DATABASE_URL, "moving to PostgreSQL and back needs TEST_DATABASE_URL");
  test.if(hasPostgres)("into PostgreSQL, and from there into a home again", async () => {
    const { url, drop } = await createPostgresDatabase();
    try {
      const [place, back] = [at("moved"), at("back")];
      const words = ["--secrets", "safe.env", "--database-url", url, "--dir", place];
      expect(jsonOf(await restore("day.backup", ...words))).toMatchObject({ changed: true });
      expect(existsSync(join(place, "pgdata"))).toBe(false);
      await expectRestored(place);
      expect((await withPassphrase("backup", "moved.backup", "--dir", place)).exitCode).toBe(0);
      const secrets = join(place, "secrets.env");
      const returned = await restore("moved.backup", "--secrets", secrets, "--database-url", "embedded", "--dir", back);
      expect(jsonOf(returned)).toMatchObject({ changed: true, database: back });
      await expectRestored(back);
    } finally {
      await drop();
    }
  });
});
