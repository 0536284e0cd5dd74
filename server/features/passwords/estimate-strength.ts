import type { ZxcvbnFactory } from "@zxcvbn-ts/core";

/**
 * zxcvbn takes longer by the square of the length (11 ms for 43 characters), and it computes where requests are answered;
 * so it sees this many characters from the beginning, and only where those are not strong yet more of them, and the end: a
 * password is no weaker than any part of it.
 */
const SEEN_FIRST = 24;
const MAX_SEEN = 48;
/** The best of zxcvbn's scores. */
const STRONGEST = 4;
/** Ways in which look-alikes ("p@$$w0rd") are read; a hundred, its default, take tens of milliseconds. */
const MAX_SUBSTITUTIONS = 5;

export interface StrengthEstimator {
  /** The most common passwords with their rank. */
  readonly commonPasswords: ReadonlyMap<string, number>;
  /** From 0 (guessed at once) to 4 (over 10^10 guesses). `words` are what somebody who knows the account tries first. */
  scoreOf(password: string, words: readonly string[]): number;
}

let loading: Promise<StrengthEstimator> | undefined;

/**
 * The estimator with its dictionaries, which are loaded once: that takes some hundred milliseconds and 60 MB, so only a
 * process that sets passwords does it.
 */
export function strengthEstimator(): Promise<StrengthEstimator> {
  loading ??= load();
  return loading;
}

async function load(): Promise<StrengthEstimator> {
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
  return {
    commonPasswords: new Map(passwords.map((password, index) => [String(password), index + 1])),
    scoreOf(password, words) {
      let best = 0;
      for (const piece of piecesOf(password)) {
        if (best < STRONGEST) best = Math.max(best, scoreOf(zxcvbn, piece, words));
      }
      return best;
    },
  };
}

const piecesOf = (password: string): ReadonlySet<string> =>
  new Set([password.slice(0, SEEN_FIRST), password.slice(0, MAX_SEEN), password.slice(-MAX_SEEN)]);

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
