import { describe, expect, test } from "bun:test";
import { OperatorError } from "../../config/errors.ts";
import { renderSecretsFile } from "../../config/render.ts";
import {
  deriveKey,
  generateSecret,
  type Keyring,
  readSecrets,
  seal,
  sealedBy,
  secretKey,
  unseal,
} from "../../config/secrets.ts";
import { systemRandom } from "../../server/ports/random.ts";

const random = systemRandom.bytes;
const secret = () => generateSecret(random);
const ring = (...texts: readonly string[]): Keyring =>
  readSecrets({ PRIMER_MASTER_KEY: texts.join(","), PRIMER_PEPPER: secret() }).master;

/** The error that this throws; fails where it throws none or one that is not meant for people. */
function refused(work: () => unknown): OperatorError {
  try {
    work();
  } catch (error) {
    if (error instanceof OperatorError) return error;
    throw error;
  }
  throw new Error("It was accepted");
}

describe("reading the master key and the pepper", () => {
  const good = { PRIMER_MASTER_KEY: secret(), PRIMER_PEPPER: secret() };
  const weak: readonly (readonly [string, string | undefined])[] = [
    ["missing", undefined],
    ["empty", ""],
    ["short", good.PRIMER_MASTER_KEY.slice(0, 42)],
    ["long", `${good.PRIMER_MASTER_KEY}A`],
    ["not base64url", `${good.PRIMER_MASTER_KEY.slice(0, 42)}!`],
    ["hexadecimal", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"],
    ["one byte over and over", Buffer.alloc(32, 7).toString("base64url")],
    ["an example", "change-me-change-me-change-me-change-me-cha"],
    ["two halves that are the same few bytes", Buffer.from("abcdefgh".repeat(4)).toString("base64url")],
    ["one good and one weak", `${secret()},${Buffer.alloc(32).toString("base64url")}`],
    ["one good and one empty", `${secret()},`],
  ];

  // No weak or missing key is ever used, and none is made in its place: the variable is named, nothing is printed of it.
  test.each(
    ["PRIMER_MASTER_KEY", "PRIMER_PEPPER"].flatMap((name) => weak.map(([kind, value]) => [name, kind, value] as const)),
  )("%s that is %s is refused by name", (name, _kind, value) => {
    const error = refused(() => readSecrets({ ...good, [name]: value }));
    expect(error.exitCode).toBe(2);
    expect(error.message).toContain(name);
    if (value) expect(`${error.message}${error.hint ?? ""}`).not.toContain(value);
  });

  test("several keys in a ring keep their order: the first one seals", () => {
    const [newest, older] = [secret(), secret()];
    const { master } = readSecrets({ ...good, PRIMER_MASTER_KEY: `${newest}, ${older}` });
    expect(master.map((key) => Buffer.from(key.bytes).toString("base64url"))).toEqual([newest, older]);
    expect(sealedBy(seal(master, Buffer.from("x"), "row", random))).toBe(master[0].id);
  });

  test("a new secret is 32 bytes, and never the same twice", () => {
    const made = new Set(Array.from({ length: 100 }, secret));
    expect(made.size).toBe(100);
    for (const text of made) expect(Buffer.from(text, "base64url")).toHaveLength(32);
  });

  test("a key is named after its bytes, and the name does not give them away", () => {
    const bytes = Buffer.from(secret(), "base64url");
    expect(secretKey(bytes).id).toBe(secretKey(Buffer.from(bytes)).id);
    expect(secretKey(bytes).id).toHaveLength(8);
    expect(bytes.toString("base64url")).not.toContain(secretKey(bytes).id);
  });

  test("keys drawn from one key for two purposes differ, and differ from it", () => {
    const key = secretKey(Buffer.from(secret(), "base64url"));
    const drawn = [key.bytes, deriveKey(key, "one"), deriveKey(key, "two")].map((bytes) =>
      Buffer.from(bytes).toString("hex"),
    );
    expect(new Set(drawn).size).toBe(3);
  });
});

describe("sealing", () => {
  const master = ring(secret());
  const plain = Buffer.from("-----BEGIN PRIVATE KEY-----\ncanary\n");

  test("what was sealed opens for the same row, and does not show", () => {
    const sealed = seal(master, plain, "row-1", random);
    expect(unseal(master, sealed, "row-1").toString()).toBe(plain.toString());
    expect(Buffer.from(sealed.split(".")[2] ?? "", "base64url").toString("latin1")).not.toContain("canary");
  });

  test("the same text sealed twice is never the same", () => {
    const sealed = Array.from({ length: 50 }, () => seal(master, plain, "row-1", random));
    expect(new Set(sealed).size).toBe(50);
  });

  // A sealed value copied into another row does not open there.
  test("another row's context fails", () => {
    const sealed = seal(master, plain, "row-1", random);
    expect(refused(() => unseal(master, sealed, "row-2")).exitCode).toBe(1);
  });

  // Any change to any part of a sealed value is noticed.
  test("every flipped byte fails", () => {
    const [version, id, body = ""] = seal(master, plain, "row-1", random).split(".");
    const bytes = Buffer.from(body, "base64url");
    for (let index = 0; index < bytes.length; index++) {
      const changed = Buffer.from(bytes);
      changed[index] = (changed[index] ?? 0) ^ 1;
      refused(() => unseal(master, `${version}.${id}.${changed.toString("base64url")}`, "row-1"));
    }
  });

  test.each([0, 1, 11, 12, 13, 27, 28, 29])("a sealed value cut to %d bytes fails", (length) => {
    const [version, id, body = ""] = seal(master, plain, "row-1", random).split(".");
    const cut = Buffer.from(body, "base64url").subarray(0, length).toString("base64url");
    refused(() => unseal(master, `${version}.${id}.${cut}`, "row-1"));
  });

  // The wrong key is told apart from damage: both ids are named, so that the operator finds the right one.
  test("another master key fails with both ids named", () => {
    const other = ring(secret());
    const error = refused(() => unseal(other, seal(master, plain, "row-1", random), "row-1"));
    expect(error.exitCode).toBe(2);
    expect(error.message).toContain(master[0].id);
    expect(error.message).toContain(other[0].id);
  });

  test("an older key of the ring still opens what it sealed", () => {
    const [older, newest] = [secret(), secret()];
    const sealed = seal(ring(older), plain, "row-1", random);
    expect(unseal(ring(newest, older), sealed, "row-1").toString()).toBe(plain.toString());
    refused(() => unseal(ring(newest), sealed, "row-1"));
  });

  test.each(["", "v1", "v1.", "plain text", "...."])("%p is no sealed value", (text) => {
    refused(() => unseal(master, text, "row-1"));
  });
});

test("the secrets.env that is written gives back what it was given", async () => {
  const { parseEnv } = await import("node:util");
  const values = {
    PRIMER_MASTER_KEY: secret(),
    DATABASE_URL: 'postgres://u:p%40ss#w$ord"x@db:5432/primer?sslmode=require',
    SMTP_URL: "smtps://user:with space@mail.example.org",
  };
  expect(parseEnv(renderSecretsFile(values))).toEqual(values);
});
