import { invalidField } from "../../errors.ts";

/** 2 to 64 characters, so never an "@": a user name and an e-mail address cannot be mistaken for each other. */
const USERNAME = /^[a-z0-9][a-z0-9._-]{1,63}$/;
/** Deliberately loose (RFC 5321 allows much): one "@", something on both sides, no spaces, at most 254 characters. */
const EMAIL = /^[^\s\p{Cc}@<>(),;:"[\]\\]{1,64}@[^\s\p{Cc}@<>(),;:"[\]\\]{1,189}$/u;

const USERNAME_RULE = "2 to 64 of a-z, 0-9, dot, underscore and hyphen, starting with a letter or digit";

/** The one spelling under which a name is kept and looked up. */
const fold = (text: string) => text.trim().normalize("NFKC").toLowerCase();

/** The user name as it is kept, or undefined where the text is none. */
export function parseUsername(text: string): string | undefined {
  const username = fold(text);
  return USERNAME.test(username) ? username : undefined;
}

/** An address as it is kept for sending, and the key by which no two accounts may be the same. */
export function parseEmail(text: string): { email: string; emailKey: string } | undefined {
  const email = text.trim().normalize("NFC");
  return EMAIL.test(email) ? { email, emailKey: fold(email) } : undefined;
}

/** The user name as it is kept. @throws AppError VALIDATION_FAILED where the text is none */
export function requireUsername(text: string): string {
  const username = parseUsername(text);
  if (username === undefined) throw invalidField("username", USERNAME_RULE);
  return username;
}

/** An address as it is kept. @throws AppError VALIDATION_FAILED where the text is none */
export function requireEmail(text: string): { email: string; emailKey: string } {
  const address = parseEmail(text);
  if (!address) throw invalidField("email", "An e-mail address such as ada@example.org");
  return address;
}

/** A piece of a name or an address, in the spelling that is searched. */
export const parseSearch = (text: string): string => fold(text.replaceAll("\u0000", "\ufffd"));

/** What somebody typed to log in with: a user name or an address, in the spelling that is looked up. */
export function parseIdentifier(text: string): { kind: "email" | "username"; key: string } {
  const key = fold(text.replaceAll("\u0000", "\ufffd"));
  return { kind: key.includes("@") ? "email" : "username", key };
}
