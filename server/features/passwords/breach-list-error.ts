/** Why the list of breached passwords could not be asked. */
export type Degradation = "breaker_open" | "deadline" | "unreachable" | "wrong_answer" | "set_missing" | "set_damaged";

export class BreachListError extends Error {
  constructor(
    readonly reason: Degradation,
    cause?: unknown,
  ) {
    super(reason, { cause });
    this.name = "BreachListError";
  }
}
