import { VERSION } from "../../../config/version.ts";
import { BreachListError } from "./breach-list-error.ts";

/** For the whole answer, from the first packet to its last (milliseconds). */
const DEADLINE_MS = 1000;
/** A padded answer has under 100 KB. */
const MAX_ANSWER_BYTES = 1024 * 1024;
const PREFIX_LENGTH = 5;
const LINE = /^([0-9A-F]{35}):(\d{1,12})$/i;

/**
 * Asks the Pwned Passwords range API whether a password is known, by k-anonymity: the service is sent five of the forty
 * digits of the hash, answers all that begin with them, and cannot tell from the padded answer's length what was asked.
 *
 * @param sha1 in upper-case hexadecimal
 * @throws BreachListError where the service does not answer as it should within a second
 */
export async function isInRange(baseUrl: string, sha1: string): Promise<boolean> {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  const late = new Promise<never>((_, reject) => {
    deadline.addEventListener("abort", () => reject(new BreachListError("deadline")), { once: true });
  });
  late.catch(() => {});
  const answer = await Promise.race([late, fetchRange(`${baseUrl}/range/${sha1.slice(0, PREFIX_LENGTH)}`, deadline)]);
  return holds(answer, sha1.slice(PREFIX_LENGTH));
}

async function fetchRange(url: string, signal: AbortSignal): Promise<string> {
  try {
    const response = await fetch(url, {
      // Nothing is unpacked, so that a small answer cannot become a large one.
      headers: { "add-padding": "true", "accept-encoding": "identity", "user-agent": `primer/${VERSION}` },
      decompress: false,
      redirect: "manual",
      signal,
    });
    if (response.status === 200 && !response.headers.has("content-encoding")) return await readBounded(response);
    await response.body?.cancel();
  } catch (error) {
    if (error instanceof BreachListError) throw error;
    throw new BreachListError(signal.aborted ? "deadline" : "unreachable", error);
  }
  throw new BreachListError("wrong_answer");
}

async function readBounded(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength;
    if (size > MAX_ANSWER_BYTES) throw new BreachListError("wrong_answer");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("latin1");
}

/** Whether a suffix stands in the answer with a count. Those with 0 are padding. */
function holds(answer: string, suffix: string): boolean {
  const lines = answer.split(/\r?\n/).filter((line) => line !== "");
  const entries = lines.map((line) => LINE.exec(line));
  const found = entries.some((entry) => entry?.[1]?.toUpperCase() === suffix && Number(entry[2]) > 0);
  if (!found && (lines.length === 0 || entries.includes(null))) throw new BreachListError("wrong_answer");
  return found;
}
