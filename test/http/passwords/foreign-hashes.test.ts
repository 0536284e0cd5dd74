import { describe, expect, test } from "bun:test";
import { readHash } from "../../../server/features/passwords/formats.ts";
import { firebaseHash } from "../../../server/features/passwords/hashes/scrypt.ts";
import vectors from "../../support/moving/hashes.json";

function readable(hash: string) {
  const read = readHash(hash);
  if ("refused" in read) throw new Error(`${hash.slice(0, 12)}: ${read.refused}`);
  return read;
}
const verify = (hash: string, password: string) => readable(hash).verify(Buffer.from(password));

describe("hashes that other tools made", () => {
  // The right password fits; one letter more does not, nor does a NUL that HMAC would not see.
  test.each(vectors.map((vector) => [vector.source, vector] as const))("%s", async (_source, vector) => {
    const { format, hash, password } = vector;
    expect(readable(hash).format).toBe(format);
    // bcrypt itself stops at 72 bytes.
    const wrong = format === "bcrypt" && password.length > 72 ? password.slice(0, 71) : `${password}!`;
    const answers = await Promise.all([password, wrong, `${password}\0`].map((guess) => verify(hash, guess)));
    expect(answers).toEqual([true, false, false]);
  });
});

const PARAMETERS = {
  signerKey: Buffer.from(
    "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==",
    "base64",
  ),
  saltSeparator: Buffer.from("Bw==", "base64"),
  rounds: 8,
  memCost: 14,
};
const FIREBASE_HASH = "lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ==";

describe("Firebase's scrypt", () => {
  // The vector of https://github.com/firebase/scrypt (README, "Password hashing").
  const salt = Buffer.from("42xEC+ixf3L2lw==", "base64");
  const hash = firebaseHash(salt, Buffer.from(FIREBASE_HASH, "base64"), PARAMETERS);

  test("the published password fits, another does not", async () => {
    expect(await Promise.all(["user1password", "user1passworD", ""].map((guess) => verify(hash, guess)))).toEqual([
      true,
      false,
      false,
    ]);
  });

  // The signer key is a secret of the whole project: what is kept here does not lead to it.
  test("what is kept has neither the signer key nor the hash that was made with it", () => {
    const kept = Buffer.from(hash.split("$").at(-1) ?? "", "base64").toString("hex");
    expect(kept).toHaveLength(128);
    expect(kept).not.toContain(PARAMETERS.signerKey.toString("hex").slice(0, 16));
    expect(kept).not.toContain(Buffer.from(FIREBASE_HASH, "base64").toString("hex").slice(0, 16));
  });

  test("a hash that does not fit the signer key is refused", () => {
    expect(() => firebaseHash(salt, Buffer.alloc(32, 1), PARAMETERS)).toThrow("does not fit");
  });
});

const b64 = (bytes: number) => Buffer.alloc(bytes, 7).toString("base64").replaceAll("=", "");
const BCRYPT_TAIL = "a".repeat(53);

/** What an imported file may ask for has a bound, whatever the format: else one line of it could stop the service. */
const REFUSED: readonly (readonly [why: string, hash: string])[] = [
  ["more memory than there is", `$argon2id$v=19$m=9999999,t=1,p=1$${b64(16)}$${b64(32)}`],
  ["1 GiB, five times", `$argon2id$v=19$m=1048576,t=5,p=1$${b64(16)}$${b64(32)}`],
  ["bcrypt of cost 17", `$2b$17$${BCRYPT_TAIL}`],
  ["bcrypt with the 8-bit bug", `$2x$10$${BCRYPT_TAIL}`],
  ["the first bcrypt", `$2$10$${BCRYPT_TAIL}`],
  ["PBKDF2 of 99,999,999 rounds", `pbkdf2_sha256$99999999$salt$${b64(32)}=`],
  ["PBKDF2 of no rounds", `pbkdf2_sha256$0$salt$${b64(32)}=`],
  ["PBKDF2 of many blocks", `$pbkdf2$2000000$${b64(16)}$${b64(100)}`],
  ["PBKDF2 with a digest of four bytes", `$pbkdf2-sha256$1000$${b64(16)}$${b64(4)}`],
  ["scrypt of 4 GiB", `$scrypt$ln=25,r=8,p=1$${b64(16)}$${b64(32)}`],
  ["scrypt many times over", `$scrypt$ln=14,r=8,p=255$${b64(16)}$${b64(32)}`],
  ["scrypt with an N that is no power of two", `scrypt:32769:8:1$salt$${"ab".repeat(64)}`],
  ["Firebase's scrypt of 4 GiB", `$firebase-scrypt$ln=25,r=8$${b64(8)}$${b64(64)}`],
  ["SHA-crypt of 999,999,999 rounds", `$6$rounds=999999999$saltstring$${"a".repeat(86)}`],
  ["SHA-crypt with the digest of the other one", `$5$saltstring$${"a".repeat(86)}`],
  ["phpass of 2^30 rounds", `$P$S${"a".repeat(30)}`],
  ["salted SHA without a salt", `{SSHA}${Buffer.alloc(20).toString("base64")}`],
  ["a digest without a salt", "5f4dcc3b5aa765d61d8327deb882cf99"],
  ["LDAP's digest without a salt", `{SHA}${Buffer.alloc(20).toString("base64")}`],
  ["yescrypt", "$y$j9T$abcdefgh$abcdefghijklmnopqrstuvwxyz"],
  ["cut off", `$argon2id$v=19$m=19456,t=2,p=1$${b64(16)}`],
  ["with more behind it", `$2b$10$${BCRYPT_TAIL}\n`],
  ["nothing", ""],
  ["a password", "correct horse battery staple"],
  ["a long text", "$6$".padEnd(100_000, "a")],
];

describe("hashes that are not taken", () => {
  test.each(REFUSED)("%s", (_why, hash) => {
    const read = readHash(hash);
    expect(read).toHaveProperty("refused");
    // What is said of it may stand in a report: nothing of the hash itself is in it.
    if ("refused" in read && hash.length > 12) expect(read.refused).not.toContain(hash.slice(-12));
  });

  // Where there is no primitive a hash is computed here: the most expensive one that is taken holds up nobody else.
  test.each([
    ["SHA-crypt", `$6$rounds=1000000$saltstring$${"a".repeat(86)}`],
    ["phpass", `$P$I${"a".repeat(30)}`],
  ])("others are served during %s", async (_name, hash) => {
    let served = 0;
    const timer = setInterval(() => served++, 1);
    expect(await verify(hash, "x".repeat(64))).toBe(false);
    clearInterval(timer);
    expect(served).toBeGreaterThan(20);
  });

  // Whatever stands in a file, reading it ends at once and never throws.
  test("no text takes long to read", () => {
    const started = performance.now();
    for (const { hash } of vectors) {
      for (let cut = 0; cut < hash.length; cut += 3) {
        readHash(hash.slice(0, cut));
        readHash(hash.slice(0, cut) + "\u0000$".repeat(200) + hash.slice(cut));
      }
    }
    expect(performance.now() - started).toBeLessThan(5000);
  });
});
