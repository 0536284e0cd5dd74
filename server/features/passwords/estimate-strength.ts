import type { ZxcvbnFactory } from "@zxcvbn-ts/core";
import { isCommon } from "./common-passwords.ts";
import type { Strength, StrengthQuestion } from "./strength.ts";

/** zxcvbn takes much longer for long passwords, so it sees this many characters from the beginning and from the end. */
const MAX_SEEN = 48;
/** Ways in which look-alikes ("p@$$w0rd") are read; a hundred, its default, take tens of milliseconds. */
const MAX_SUBSTITUTIONS = 5;

/**
 * Loads the dictionaries, which takes some hundred milliseconds and 60 MB.
 *
 * @returns to be asked how strong a password is; up to some tens of milliseconds each
 */
export async function loadEstimator(): Promise<(question: StrengthQuestion) => Strength> {
  const [{ ZxcvbnFactory }, common, english] = await Promise.all([
    import("@zxcvbn-ts/core"),
    import("@zxcvbn-ts/language-common"),
    import("@zxcvbn-ts/language-en"),
  ]);
  const zxcvbn = new ZxcvbnFactory({
    dictionary: { ...common.dictionary, ...english.dictionary },
    graphs: common.adjacencyGraphs,
    l33tMaxSubstitutions: MAX_SUBSTITUTIONS,
    maxLength: MAX_SEEN,
  });
  const passwords: readonly (string | number)[] = common.dictionary["passwords-common"];
  const ranks = new Map(passwords.map((password, index) => [String(password), index + 1]));
  return ({ password, words }) => {
    if (isCommon(password, ranks)) return { common: true, score: 0 };
    return { common: false, score: Math.max(...piecesOf(password).map((piece) => scoreOf(zxcvbn, piece, words))) };
  };
}

const piecesOf = (password: string): readonly string[] =>
  password.length <= MAX_SEEN ? [password] : [password.slice(0, MAX_SEEN), password.slice(-MAX_SEEN)];

/**
 * zxcvbn counts ten guesses for a character that it recognises nothing in, whatever character it is. Eight of those, which
 * are enough where `password.min_length` says so, would just not be a hundred million.
 */
const UNRECOGNISED_SCORE = 3;

function scoreOf(zxcvbn: ZxcvbnFactory, password: string, words: readonly string[]): number {
  const { score, sequence } = zxcvbn.check(password, [...words]);
  const isUnrecognised = password.length >= 8 && sequence.every(({ pattern }) => pattern === "bruteforce");
  return isUnrecognised ? Math.max(score, UNRECOGNISED_SCORE) : score;
}
