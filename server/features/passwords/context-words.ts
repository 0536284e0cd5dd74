import type { Settings } from "../../../config/schema.ts";

/** Whose password it is, as far as that is known. */
export interface PasswordOwner {
  readonly username?: string;
  readonly email?: string;
}

const PRODUCT_NAME = "primer";
/** Shorter words are in any text by chance. */
const MIN_WORD_LENGTH = 4;
/**
 * A password is refused where words that anybody would try first make up this share of it or more: what is left of 15
 * characters is then at most ten. One such word in a longer passphrase is no harm.
 */
const MAX_SHARE = 1 / 3;

/** Characters that are typed for each other, each group under its first one. */
const LOOKALIKES = ["a4@", "b8", "e3", "g69", "i1l!|", "o0", "s5$", "t7+", "z2"];
const PLAIN = new Map(LOOKALIKES.flatMap((group) => [...group].map((letter) => [letter, group.charAt(0)])));

/** The letters and digits of a text, in one spelling: without case, look-alikes, dots, spaces and other signs. */
const fold = (text: string): string =>
  [...text.normalize("NFC").toLowerCase()]
    .map((letter) => PLAIN.get(letter) ?? letter)
    .filter((letter) => /[\p{L}\p{N}\p{M}]/u.test(letter))
    .join("");

const hostOf = (url: string): string => (URL.canParse(url) ? new URL(url).hostname : "");

/**
 * The words that somebody who knows the account would try first: its user name, its e-mail address, the host that
 * primer is reached at, and the product's name; each whole and in its parts.
 */
export function contextWords(settings: Pick<Settings, "server" | "tokens">, owner: PasswordOwner): readonly string[] {
  const [local = "", domain = ""] = (owner.email ?? "").split("@");
  const hosts = [settings.server.public_url, settings.tokens.issuer].map(hostOf);
  const names = [owner.username ?? "", local, domain, ...hosts, PRODUCT_NAME];
  const words = names.flatMap((name) => [name, ...name.split(/[^\p{L}\p{N}\p{M}]+/u)]);
  return [...new Set(words)].filter((word) => fold(word).length >= MIN_WORD_LENGTH);
}

/** Whether these words make up a good part of a password, however they are spelled. */
export function isContextual(password: string, words: readonly string[]): boolean {
  const text = fold(password);
  const covered = new Uint8Array(text.length);
  for (const word of new Set(words.map(fold))) {
    for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) {
      covered.fill(1, at, at + word.length);
    }
  }
  const share = covered.reduce((sum, one) => sum + one, 0) / Math.max(1, text.length);
  return share >= MAX_SHARE;
}
