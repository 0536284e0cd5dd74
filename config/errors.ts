/** Exit codes of every command (the contract that scripts and CI pipelines rely on). The last one is that of shells. */
export const EXIT = { done: 0, failed: 1, usage: 2, unreachable: 3, finding: 4, interrupted: 130 } as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/**
 * An error whose text is meant for the person at the command line: what happened and why in `message`,
 * what to do about it in `hint`. The command line's one error funnel prints it without a stack and exits with `exitCode`.
 */
export class OperatorError extends Error {
  /** "held": another process owns the embedded database, and may run the command for us. */
  readonly reason: "held" | undefined;

  constructor(
    readonly exitCode: ExitCode,
    message: string,
    readonly hint?: string,
    options?: ErrorOptions & { reason?: "held" },
  ) {
    super(message, options);
    this.reason = options?.reason;
    this.name = "OperatorError";
  }
}

/** Something was done and did not work out (exit 1). */
export const failed = (message: string, hint?: string, cause?: unknown) =>
  new OperatorError(EXIT.failed, message, hint, { cause });

/** Wrong usage or configuration (exit 2). */
export const misused = (message: string, hint?: string, cause?: unknown) =>
  new OperatorError(EXIT.usage, message, hint, { cause });

/** A dependency does not answer (exit 3): say which, at what address, and what to try. */
export const unreachable = (message: string, hint?: string, cause?: unknown) =>
  new OperatorError(EXIT.unreachable, message, hint, { cause });

/** The `code` of a system or driver error such as ENOENT or 57014, where it has one. */
export function codeOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : undefined;
}

/** The text of whatever was thrown. */
export const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
