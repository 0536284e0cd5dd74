/** Why a list of bad networks was not taken: a code for programs, a sentence for operators. */
export class ThreatListError extends Error {
  constructor(
    readonly code: "UNREACHABLE" | "DEADLINE" | "WRONG_ANSWER" | "TOO_LARGE" | "NOT_VERIFIED" | "DAMAGED",
    message: string,
    cause?: unknown,
  ) {
    super(message, { cause });
    this.name = "ThreatListError";
  }
}
