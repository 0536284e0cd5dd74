/** One thing that `primer doctor` looked at: how it stands, and how to mend it where it is not right. */
export interface Finding {
  readonly check: string;
  readonly state: "ok" | "warning" | "failed";
  readonly message: string;
  readonly mend?: string;
}

export const ok = (check: string, message: string): Finding => ({ check, state: "ok", message });

export const warning = (check: string, message: string, mend: string): Finding => ({
  check,
  state: "warning",
  message,
  mend,
});

export const broken = (check: string, message: string, mend: string): Finding => ({
  check,
  state: "failed",
  message,
  mend,
});
