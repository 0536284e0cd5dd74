/**
 * Which passwords are refused because everybody tries them first. Lists of leaked passwords hold few of 15 characters and
 * more, and those are made by a handful of habits; so beside the list of the most common ones that comes with zxcvbn
 * (49,000), the longer ones are found by rule, some millions of them: repetitions, two common ones in a row, runs of keys.
 */

/** How many of the most common passwords are looked for as halves of longer ones: "qwerty123456789". */
const MAX_HALF_RANK = 3000;
const MIN_HALF_LENGTH = 3;
/** Up to this length anything that is repeated to the end is as good as its first part: "abcdabcdabcdabcd". */
const MAX_SHORT_UNIT = 4;
/** A run of fewer keys or letters in a row is chance. */
const MIN_RUN = 4;
/** What people put between two words: it makes them no harder to guess. */
const SEPARATORS = /[\s._-]+/g;
/** More of them than this is a pattern that somebody thought of. */
const MAX_RUNS = 4;

/** Rows and columns of keyboards (QWERTY, QWERTZ, AZERTY), zigzags between them, and the orders that everybody knows. */
const ORDERS = [
  "1234567890",
  "qwertyuiop",
  "asdfghjkl",
  "zxcvbnm",
  "qwertzuiop",
  "yxcvbnm",
  "azertyuiop",
  "qsdfghjklm",
  "wxcvbn",
  "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
  "1qazxsw23edcvfr45tgbnhy67ujm",
  "qazwsxedcrfvtgbyhnujm",
  "1q2w3e4r5t6y7u8i9o0p",
  "q1w2e3r4t5y6u7i8o9p0",
  "abcdefghijklmnopqrstuvwxyz",
  "0123456789",
].flatMap((order) => {
  const twice = order + order;
  return [twice, [...twice].reverse().join("")];
});

/** How many characters from `start` on are a run of one of the orders; 0 where there is none to speak of. */
function runLength(text: string, start: number): number {
  let longest = 0;
  for (const order of ORDERS) {
    for (let at = order.indexOf(text.charAt(start)); at >= 0; at = order.indexOf(text.charAt(start), at + 1)) {
      let length = 1;
      while (start + length < text.length && text.charAt(start + length) === order.charAt(at + length)) length++;
      longest = Math.max(longest, length);
    }
  }
  return longest >= MIN_RUN ? longest : 0;
}

/** "qwertyuiopasdfgh", "zaq12wsxcde34rfv": a few runs of keys or letters, from one end to the other. */
function isRuns(text: string, most = MAX_RUNS): boolean {
  let at = 0;
  for (let run = 0; run < most && at < text.length; run++) {
    const length = runLength(text, at);
    if (length === 0) return false;
    at += length;
  }
  return at === text.length;
}

/** The shortest unit that a text repeats to its end, the last time perhaps cut off. The text itself where it repeats none. */
function unitOf(text: string): string {
  for (let length = 1; length <= text.length / 2; length++) {
    if (text.startsWith(text.slice(length))) return text.slice(0, length);
  }
  return text;
}

/** @param ranks the most common passwords with their rank, 1 for the most common */
export function isCommon(password: string, ranks: ReadonlyMap<string, number>): boolean {
  const text = password.toLowerCase();
  return isCommonText(text, ranks) || isCommonText(text.replace(SEPARATORS, ""), ranks);
}

function isCommonText(text: string, ranks: ReadonlyMap<string, number>): boolean {
  if (ranks.has(text) || isRuns(text)) return true;
  const unit = unitOf(text);
  if (unit !== text && (unit.length <= MAX_SHORT_UNIT || ranks.has(unit) || isRuns(unit, 1))) return true;
  const isHalf = (half: string) => half.length >= MIN_HALF_LENGTH && (ranks.get(half) ?? Infinity) <= MAX_HALF_RANK;
  for (let at = MIN_HALF_LENGTH; at <= text.length - MIN_HALF_LENGTH; at++) {
    if (isHalf(text.slice(0, at)) && isHalf(text.slice(at))) return true;
  }
  return false;
}
