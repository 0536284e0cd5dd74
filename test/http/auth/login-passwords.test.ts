import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { pbkdf2Sync } from "node:crypto";
import { readHash } from "../../../server/features/passwords/formats.ts";
import { PASSWORD } from "../../support/app.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { stepsOf } from "../support/observe.ts";
import { storedHash, storeHash } from "../support/scenario.ts";

/** OWASP's floor as a PHC text, with a salt of 16 bytes and a digest of 32. */
const ARGON2ID_AT_THE_FLOOR = /^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/;

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp();
});
afterAll(() => app.close());

let count = 0;
const newUser = (password: string) => app.createUser({ username: `user-${++count}`, password });
const tryLogin = (username: string, password: string) =>
  app.request("POST", "/api/v1/auth/login", { body: { username, password } });

const long = (length: number) => Array.from({ length }, (_, index) => "abcdefghijkmnopqrstuvwxyz"[index % 25]).join("");
const NFC = "Zoë Ångström läuft über Brücken".normalize("NFC");
const NFD = NFC.normalize("NFD");

interface Case {
  readonly name: string;
  readonly password: string;
  readonly accepted?: readonly string[];
  readonly refused: readonly string[];
}

const CASES: readonly Case[] = [
  {
    name: "64 characters",
    password: long(64),
    refused: [long(63), `${long(64)}x`],
  },
  {
    name: "100 characters",
    password: long(100),
    refused: [long(72), long(99), `${long(99)}!`],
  },
  {
    name: "256 characters",
    password: long(256),
    refused: [long(72), long(255), `${long(255)}!`],
  },
  { name: "composed letters (NFC)", password: NFC, accepted: [NFD], refused: ["Zoe Angstrom lauft uber Brucken"] },
  { name: "decomposed letters (NFD)", password: NFD, accepted: [NFC], refused: [NFC.toLowerCase()] },
  {
    name: "compatibility letters, which are not folded (no NFKC)",
    password: "ﬁve ﬂuﬀy kittens",
    refused: ["five fluffy kittens"],
  },
  {
    name: "NUL in the middle",
    password: "correct horse\u0000battery staple",
    refused: [
      "correct horse",
      "correct horse\u0000",
      "correct horse\u0000another ending",
      "correct horsebattery staple",
    ],
  },
  { name: "spaces at both ends", password: "  fifteen and more  ", refused: ["fifteen and more"] },
  { name: "emoji only", password: "🐎🔋📎✅🐎🔋📎✅🐎🔋📎✅🐎🔋📎", refused: ["🐎🔋📎✅🐎🔋📎✅🐎🔋📎✅🐎🔋✅"] },
];

describe("passwords", () => {
  // The whole password counts, in its canonical Unicode form, and nothing of it is cut off, trimmed or folded.
  for (const { name, password, accepted = [], refused } of CASES) {
    test(name, async () => {
      const { username } = await newUser(password);
      for (const right of [password, ...accepted]) expect((await tryLogin(username, right)).status).toBe(200);
      for (const wrong of refused) expect((await tryLogin(username, wrong)).status).toBe(401);
    });
  }

  // A password beyond 1024 bytes costs us no hash, however few characters it has.
  for (const [name, password] of [
    ["1025 letters", "x".repeat(1025)],
    ["400 characters of 3 bytes", "€".repeat(400)],
    ["300 characters of 4 bytes", "🐎".repeat(300)],
    ["20,000 letters", "x".repeat(20_000)],
  ] as const) {
    test(`422 without a hash for ${name}`, async () => {
      const { username } = await newUser(PASSWORD);
      let status = 0;
      const steps = await stepsOf(app.deps, async () => {
        status = (await tryLogin(username, password)).status;
      });
      expect({ status, steps }).toEqual({ status: 422, steps: [] });
    });
  }

  test("1024 bytes are taken", async () => {
    const password = Array.from({ length: 341 }, (_, index) => String.fromCodePoint(0x4e00 + index * 43)).join("");
    const { username } = await newUser(password);
    expect((await tryLogin(username, password)).status).toBe(200);
  });

  // A stolen table of hashes is expensive to guess at: argon2id at OWASP's floor, and no two hashes alike.
  test("what the row keeps is an argon2id hash with a salt of its own", async () => {
    const [first, second] = [await newUser(PASSWORD), await newUser(PASSWORD)];
    const hashes = [await storedHash(app, first.id), await storedHash(app, second.id)];
    for (const hash of hashes) expect(hash).toMatch(ARGON2ID_AT_THE_FLOOR);
    expect(hashes[0]).not.toBe(hashes[1]);
  });
});

const SALT = Buffer.from("0123456789abcdef");
const digest = (salt: Buffer | string, rounds: number) => pbkdf2Sync(PASSWORD, salt, rounds, 32, "sha256");
const passlib64 = (bytes: Buffer) => bytes.toString("base64").replaceAll("+", ".").replaceAll("=", "");

const IMPORTED: Readonly<Record<string, () => Promise<string> | string>> = {
  "bcrypt of cost 10 ($2b$)": () => Bun.password.hash(PASSWORD, { algorithm: "bcrypt", cost: 10 }),
  "bcrypt of cost 12 ($2b$)": () => Bun.password.hash(PASSWORD, { algorithm: "bcrypt", cost: 12 }),
  "bcrypt of cost 10 ($2y$, PHP)": async () =>
    (await Bun.password.hash(PASSWORD, { algorithm: "bcrypt", cost: 10 })).replace("$2b$", "$2y$"),
  "PBKDF2-SHA256 (passlib)": () => `$pbkdf2-sha256$29000$${passlib64(SALT)}$${passlib64(digest(SALT, 29_000))}`,
  "PBKDF2-SHA256 (Django)": () => `pbkdf2_sha256$26000$NaCl$${digest("NaCl", 26_000).toString("base64")}`,
  "argon2id with other parameters": () =>
    Bun.password.hash(PASSWORD, { algorithm: "argon2id", memoryCost: 8192, timeCost: 1 }),
};

describe("imported hashes", () => {
  // People who were imported log in as before, and their first right password moves them to today's hash; a wrong one
  // changes nothing.
  for (const [name, make] of Object.entries(IMPORTED)) {
    test(name, async () => {
      const { id, username } = await newUser(PASSWORD);
      const imported = await make();
      await storeHash(app, id, imported);

      expect((await tryLogin(username, "a wrong password of ours")).status).toBe(401);
      expect(await storedHash(app, id)).toBe(imported);

      expect((await tryLogin(username, PASSWORD)).status).toBe(200);
      const rehashed = await storedHash(app, id);
      expect(rehashed).toMatch(ARGON2ID_AT_THE_FLOOR);
      expect((await tryLogin(username, PASSWORD)).status).toBe(200);
      expect(await storedHash(app, id)).toBe(rehashed);
    });
  }

  // An account that may not log in is not rehashed either: a refused login changes nothing of the account.
  test("a right password on a disabled account leaves the row", async () => {
    const { id, username } = await newUser(PASSWORD);
    const imported = await Bun.password.hash(PASSWORD, { algorithm: "bcrypt", cost: 10 });
    await storeHash(app, id, imported);
    await app.db.query("UPDATE users SET status = 'disabled' WHERE id = $1", [id]);
    expect((await tryLogin(username, PASSWORD)).status).toBe(403);
    expect(await storedHash(app, id)).toBe(imported);
  });

  // Two right passwords at once both log in, and leave one hash that works.
  test("two logins at once, both rehashing", async () => {
    const { id, username } = await newUser(PASSWORD);
    await storeHash(app, id, await Bun.password.hash(PASSWORD, { algorithm: "bcrypt", cost: 10 }));
    const answers = await Promise.all([tryLogin(username, PASSWORD), tryLogin(username, PASSWORD)]);
    expect(answers.map((answer) => answer.status)).toEqual([200, 200]);
    expect(await storedHash(app, id)).toMatch(ARGON2ID_AT_THE_FLOOR);
    expect((await tryLogin(username, PASSWORD)).status).toBe(200);
  });

  // A stored hash cannot ask for so much work that verifying it stops the service: it counts as damaged.
  for (const hash of [
    `$argon2id$v=19$m=9999999,t=1,p=1$${"A".repeat(22)}$${"A".repeat(43)}`,
    `$argon2id$v=19$m=19456,t=999,p=1$${"A".repeat(22)}$${"A".repeat(43)}`,
    `$2b$19$${"a".repeat(53)}`,
  ]) {
    test(`too much work: ${hash.slice(0, 32)}`, () => {
      expect(readHash(hash)).toHaveProperty("refused");
    });
  }
});

describe("bcrypt by setting", () => {
  // Where an operator chooses bcrypt, the whole password still counts (bcrypt alone stops at 72 bytes and at NUL).
  test("cost 12, whole value verified", async () => {
    const other = await openHttpApp({ PRIMER_PASSWORD__ALGORITHM: "bcrypt", PRIMER_PASSWORD__BCRYPT_COST: "10" });
    try {
      const { id, username } = await other.createUser({ username: "bea", password: long(100) });
      const statusOf = async (password: string) =>
        (await other.request("POST", "/api/v1/auth/login", { body: { username, password } })).status;
      expect(await storedHash(other, id)).toMatch(/^\$2b\$10\$/);
      expect(await statusOf(long(100))).toBe(200);
      expect(await statusOf(long(72))).toBe(401);
      expect(await statusOf(`${long(99)}!`)).toBe(401);
    } finally {
      await other.close();
    }
  });
});
