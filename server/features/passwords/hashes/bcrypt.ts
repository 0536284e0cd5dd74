import { createHash, createHmac } from "node:crypto";
import { bcrypt } from "../native.ts";
import type { HashFormat, Verify } from "./format.ts";

/** What is under the bcrypt hash: the password, or a digest of it in text. */
type Prehash = (password: Buffer, salt: string) => string | Buffer;

const HASH = String.raw`\$2[aby]\$(?:0[4-9]|1[0-4])\$[./A-Za-z0-9]{53}`;

/** As every bcrypt, it takes the first 72 bytes. */
const verifier =
  (hash: string, prehash: Prehash = (password) => password): Verify =>
  async (password) =>
    (await bcrypt()).verify(prehash(password, hash.slice(7, 29)), hash);

const bcryptFormat = (name: string, prefix: string, prehash?: Prehash): HashFormat => ({
  name,
  pattern: new RegExp(`^${prefix}(?<hash>${HASH})$`),
  read: ({ hash = "" }) => verifier(hash, prehash),
});

/** bcrypt of costs 4 to 14, about a second. `$2x$`, which marks hashes made with the 8-bit bug, is not among them. */
export const BCRYPT: readonly HashFormat[] = [
  bcryptFormat("bcrypt", String.raw`(?:bcrypt\$)?`),
  bcryptFormat("bcrypt-sha256 (Django)", String.raw`bcrypt_sha256\$`, (password) =>
    createHash("sha256").update(password).digest("hex"),
  ),
  {
    name: "bcrypt-sha256 (passlib)",
    pattern:
      /^\$bcrypt-sha256\$v=2,t=2b,r=(?<cost>[4-9]|1[0-4])\$(?<salt>[./A-Za-z0-9]{22})\$(?<digest>[./A-Za-z0-9]{31})$/,
    read: ({ cost = "", salt = "", digest = "" }) =>
      verifier(`$2b$${cost.padStart(2, "0")}$${salt}${digest}`, (password) =>
        createHmac("sha256", salt).update(password).digest("base64"),
      ),
  },
];
