import type { ZxcvbnFactory } from "@zxcvbn-ts/core";

/**
 * zxcvbn takes much longer for long passwords, and it computes where requests are answered; so it sees this many
 * characters from the beginning and from the end, which is more than it needs to find a password strong.
 */
const MAX_SEEN = 48;
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
    scoreOf: (password, words) => Math.max(...piecesOf(password).map((piece) => scoreOf(zxcvbn, piece, words))),
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
