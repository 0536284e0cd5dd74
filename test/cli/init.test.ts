import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { loadSettings } from "../../config/load.ts";
import { generateSecret } from "../../config/secrets.ts";
import { openPglite } from "../../db/pglite.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { runPrimer } from "../support/server.ts";
import { freePort } from "../support/services.ts";
import { ADMIN, hashesOf, jsonOf, openScratch, when } from "./support/home.ts";
import { passwordFits, standingOf } from "./support/installation.ts";

const FILES = ["primer.toml", "secrets.env"];
const scratch = openScratch();
afterAll(() => scratch.remove());

const init = (
  home: string,
  args: readonly string[] = [],
  more: { input?: string; environment?: Record<string, string> } = {},
) => runPrimer(["init", "--yes", "--json", "--dir", home, ...args], more);

// A password that init makes up is one that the policy of the settings lets pass.
test("a made-up password is as long as the settings ask, and has what they ask for", async () => {
  const environment = {
    PRIMER_PASSWORD__MIN_LENGTH: "64",
    PRIMER_PASSWORD__REQUIRE: "letter,upper,lower,digit,symbol",
  };
  const ran = await init(scratch.path("home"), ["--algorithm", "ES256"], { environment });
  expect(ran.exitCode).toBe(0);
  expect(jsonOf(ran).admin.password).toMatch(/^[0-9A-Z]{5}(-[0-9a-z]{5}){10,}$/);
});

// Nothing is set up with a password that anybody would guess, and nothing is written before that is said.
test.each(["passwordpassword", "Admin@localhost 2026", "Winter2025Winter2025"])(
  "%s is no password for an administrator: exit 2",
  async (input) => {
    const home = scratch.path("home");
    expect((await init(home, ["--admin-password-stdin"], { input })).exitCode).toBe(2);
    expect(existsSync(home)).toBe(false);
  },
);

describe("init by flags", () => {
  let home: string;
  let ran: Awaited<ReturnType<typeof init>>;
  const flags = ["--algorithm", "RS256", "--key-bits", "3072", "--public-url", "http://localhost:8099"];
  const more = ["--smtp-url", "smtps://u:c4n4ry@mail.example.org", "--otlp-endpoint", "http://collector:4318"];
  const who = ["--admin-username", "Grace", "--admin-email", "grace@example.org"];
  beforeAll(async () => {
    home = scratch.path("home");
    ran = await init(home, [...flags, ...more, ...who]);
  });

  test("exit 0, one document, and the password on standard error too", () => {
    expect(ran.exitCode).toBe(0);
    const { admin, ...rest } = jsonOf(ran);
    expect(rest).toMatchObject({ home, changed: true, key_created: true });
    expect(admin).toMatchObject({ username: "grace", email: "grace@example.org" });
    expect(admin.password).toMatch(/^([0-9a-z]{5}-){4}[0-9a-z]{5}$/);
    expect(ran.stderr).toContain(admin.password);
  });

  // Secrets are their owner's alone, and stand in one file that is not the settings'.
  test("secrets.env is 0600, the home 0700, and no secret is in primer.toml", () => {
    expect(statSync(join(home, "secrets.env")).mode & 0o777).toBe(0o600);
    expect(statSync(home).mode & 0o777).toBe(0o700);
    expect(readFileSync(join(home, "primer.toml"), "utf8")).not.toContain("c4n4ry");
    expect(readFileSync(join(home, "secrets.env"), "utf8")).toContain("c4n4ry");
    expect(readdirSync(home).filter((name) => name.endsWith(".new"))).toEqual([]);
  });

  test("only what differs from the defaults is active in primer.toml", () => {
    const active = readFileSync(join(home, "primer.toml"), "utf8").match(/^\w+ = .*$/gm);
    expect(active?.sort()).toEqual([
      "bits = 3072",
      'environment = "development"',
      'public_url = "http://localhost:8099"',
    ]);
  });

  test("one active key, sealed, of the size that was asked for; one administrator with the password shown", async () => {
    const standing = await standingOf(home, { username: "grace", password: jsonOf(ran).admin.password });
    expect(standing).toMatchObject({
      passwordFits: true,
      activeSigningKeys: 1,
      activeRefreshKeys: 1,
      administrators: ["grace"],
    });
    expect(Buffer.from(standing.publicKey.n ?? "", "base64url")).toHaveLength(384);
    expect(standing.sealedPrivateKey).not.toContain("PRIVATE KEY");
  });
});

describe("init a second time", () => {
  // A second run changes nothing: not a file, not a key, not a password.
  test("says that nothing was changed, and nothing was", async () => {
    const home = await scratch.home();
    const [files, standing] = [hashesOf(home, FILES), await standingOf(home, ADMIN)];
    const ran = await init(home, ["--public-url", "http://elsewhere:1", "--algorithm", "RS256"]);
    expect({ exitCode: ran.exitCode, json: jsonOf(ran) }).toEqual({ exitCode: 0, json: { home, changed: false } });
    expect(hashesOf(home, FILES)).toEqual(files);
    expect(standing.passwordFits).toBe(true);
    expect(await standingOf(home, ADMIN)).toEqual(standing);
  });

  // --force replaces settings, and never a key that a live token may bear or that opens what is kept.
  test("with --force replaces the settings, says so, and keeps every key and password", async () => {
    const home = await scratch.home();
    const [files, standing] = [hashesOf(home, FILES), await standingOf(home, ADMIN)];
    const ran = await init(home, ["--force", "--public-url", "http://elsewhere:1", "--algorithm", "RS256"]);
    expect(ran.exitCode).toBe(0);
    expect(jsonOf(ran).changed).toBe(true);
    expect(hashesOf(home, FILES)["secrets.env"]).toBe(files["secrets.env"] ?? "");
    expect(loadSettings(home, {}).settings.server.public_url).toBe("http://elsewhere:1");
    expect(standing.passwordFits).toBe(true);
    expect(await standingOf(home, ADMIN)).toEqual(standing);
  });
});

describe("init refuses, and writes nothing", () => {
  const weak = { input: "too short" };
  test.concurrent.each([
    ["production without an address", ["--environment", "production"], {}, 2],
    ["production over http", ["--environment", "production", "--public-url", "http://login.example.org"], {}, 2],
    ["an address with a path", ["--public-url", "https://login.example.org/login"], {}, 2],
    ["a key of 2048 bits", ["--key-bits", "2048"], {}, 2],
    ["a key of no size", ["--key-bits", "many"], {}, 2],
    ["an unknown algorithm", ["--algorithm", "HS256"], {}, 2],
    ["an unknown environment", ["--environment", "prod"], {}, 2],
    ["a database of another kind", ["--database-url", "mysql://db/primer"], {}, 2],
    ["a weak password", ["--admin-password-stdin"], weak, 2],
    ["an empty password", ["--admin-password-stdin"], { input: "" }, 2],
    ["a user name that is none", ["--admin-username", "a b"], {}, 2],
    ["an address that is none", ["--admin-email", "nobody"], {}, 2],
    ["a wrong setting in the environment", [], { environment: { PRIMER_SERVER__PORT: "x" } }, 2],
  ])("%s: exit 2", async (_name, args, more, exitCode) => {
    const home = scratch.path("refused");
    const ran = await init(home, ["--algorithm", "ES256", ...args], more);
    expect(ran.exitCode).toBe(exitCode);
    expect(jsonOf(ran).error.exit_code).toBe(exitCode);
    expect(existsSync(home)).toBe(false);
  });

  test("a database that is not there: exit 3 with what to try, and without its password", async () => {
    const home = scratch.path("no-database");
    const address = `127.0.0.1:${await freePort()}`;
    const ran = await init(home, ["--database-url", `postgres://primer:c4n4ry@${address}/primer`]);
    expect(ran.exitCode).toBe(3);
    expect(jsonOf(ran).error).toMatchObject({
      message: expect.stringContaining(address),
      hint: expect.stringMatching(/\S/),
    });
    expect(ran.stdout + ran.stderr).not.toContain("c4n4ry");
    expect(existsSync(home)).toBe(false);
  });

  test("a home below a regular file: exit 1, and the file stays", async () => {
    const file = scratch.path("file");
    writeFileSync(file, "precious");
    const ran = await init(join(file, "home"));
    expect(ran.exitCode).toBe(1);
    expect(jsonOf(ran).error.hint).toContain("--dir");
    expect(readFileSync(file, "utf8")).toBe("precious");
  });

  const CANNOT_BE_ROOT = when(
    process.getuid?.() !== 0,
    "init in a folder of somebody else's: root may write everywhere",
  );
  test.if(CANNOT_BE_ROOT)("a folder that may not be written: exit 1", async () => {
    const home = scratch.path("read-only");
    mkdirSync(home, { mode: 0o500 });
    expect((await init(home)).exitCode).toBe(1);
    chmodSync(home, 0o700);
    expect(readdirSync(home)).toEqual([]);
  });
});

describe("a home that was damaged", () => {
  interface Damage {
    readonly name: string;
    /** Damages the home; answers how to mend it. */
    damage(home: string): () => void;
  }

  const replacing = (file: string, change: (text: string) => string) => (home: string) => {
    const path = join(home, file);
    const before = readFileSync(path, "utf8");
    writeFileSync(path, change(before));
    return () => writeFileSync(path, before);
  };
  const moved = (file: string) => (home: string) => {
    const path = join(home, file);
    renameSync(path, `${path}.aside`);
    return () => renameSync(`${path}.aside`, path);
  };

  const DAMAGES: readonly Damage[] = [
    { name: "a corrupt primer.toml", damage: replacing("primer.toml", (text) => `${text}\n[server\nport`) },
    { name: "a lost secrets.env", damage: moved("secrets.env") },
    {
      name: "another master key",
      damage: replacing("secrets.env", (text) =>
        text.replace(/^PRIMER_MASTER_KEY=.*$/m, `PRIMER_MASTER_KEY=${generateSecret(systemRandom.bytes)}`),
      ),
    },
    {
      name: "a secrets.env without the master key",
      damage: replacing("secrets.env", (text) => text.replace(/^PRIMER_MASTER_KEY=.*$/m, "")),
    },
    {
      name: "a secrets.env without the pepper",
      damage: replacing("secrets.env", (text) => text.replace(/^PRIMER_PEPPER=.*$/m, "")),
    },
  ];
  const FULL = when(process.env.TEST_FULL, "every command in a damaged home; two of them are tried (TEST_FULL)");
  const ALWAYS = [["serve"], ["init", "--yes", "--force"]];
  const COMMANDS = FULL ? [...ALWAYS, ["users", "list"], ["init", "--yes"], ["migrate"]] : ALWAYS;

  // Each of these is one clear line and exit 2; no command makes a new secret in place of one that was lost, and with
  // the right file put back everything works again.
  test.concurrent.each(DAMAGES.map(({ name, damage }) => [name, damage] as const))(
    "%s: exit 2, nothing destroyed",
    async (_name, damage) => {
      const home = await scratch.home();
      const mend = damage(home);
      const files = hashesOf(home, FILES);
      for (const command of COMMANDS) {
        const ran = await runPrimer([...command, "--dir", home]);
        expect({ command, exitCode: ran.exitCode, files: hashesOf(home, FILES) }).toEqual({
          command,
          exitCode: 2,
          files,
        });
        expect(ran.stderr.trimEnd().split("\n").length).toBeLessThanOrEqual(3);
        expect(ran.stderr).not.toMatch(/^ +at /m);
      }
      mend();
      expect(await passwordFits(home, ADMIN.username, ADMIN.password)).toBe(true);
    },
  );
});

// A home that was pointed at another installation's database by mistake leaves that database as it is.
test("another installation's database is not migrated", async () => {
  const home = await scratch.home();
  const open = () => openPglite(home);
  const db = await open();
  await db.query("DROP SCHEMA jobs CASCADE");
  await db.close();
  rmSync(join(home, "primer.toml"));
  const key = generateSecret(systemRandom.bytes);
  const ran = await init(home, [], { environment: { PRIMER_MASTER_KEY: key } });
  expect(ran.exitCode).toBe(2);
  expect(existsSync(join(home, "primer.toml"))).toBe(false);
  const after = await open();
  expect(await after.query("SELECT to_regnamespace('jobs')::text AS found")).toEqual([{ found: null }]);
  await after.close();
});

// Where the secrets come from outside, none of another kind are left in the home to be taken for the right ones.
test("secrets given by the environment are the ones that count, and no others are written", async () => {
  const home = scratch.path("home");
  const environment = {
    PRIMER_MASTER_KEY: generateSecret(systemRandom.bytes),
    PRIMER_PEPPER: generateSecret(systemRandom.bytes),
  };
  const ran = await init(home, ["--algorithm", "ES256", "--admin-password-stdin"], {
    environment,
    input: ADMIN.password,
  });
  expect(ran.exitCode).toBe(0);
  const path = join(home, "secrets.env");
  const written = existsSync(path) ? readFileSync(path, "utf8") : "";
  for (const [name, value] of Object.entries(environment)) {
    const found = new RegExp(`^${name}=(.*)$`, "m").exec(written)?.[1];
    expect([undefined, value]).toContain(found);
  }
});
