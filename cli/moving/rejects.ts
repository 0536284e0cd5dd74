import { closeSync, openSync, rmSync, writeFileSync } from "node:fs";
import { failed, textOf } from "../../config/errors.ts";

/** One user who was not taken: where they stand, and why. Nothing of a hash. */
export interface Reject {
  readonly file: string;
  /** The line, or the place in the list. */
  readonly at: number;
  readonly code: string;
  readonly reason: string;
  readonly username: string | null;
  readonly email: string | null;
}

/** The file of those who were not taken: there only where there are any, and for its owner's eyes alone. */
export interface RejectsFile {
  readonly path: string;
  add(reject: Reject): void;
  close(): void;
}

/** What an earlier run has left at the path is removed. @throws OperatorError exit 1 where it cannot be written */
export function openRejects(path: string): RejectsFile {
  let file: number | undefined;
  const orFail = <T>(work: () => T): T => {
    try {
      return work();
    } catch (error) {
      throw failed(`${path} cannot be written: ${textOf(error)}`, "Name another file: --rejects FILE", error);
    }
  };
  orFail(() => rmSync(path, { force: true }));
  return {
    path,
    add: (reject) =>
      orFail(() => {
        file ??= openSync(path, "wx", 0o600);
        writeFileSync(file, `${JSON.stringify(reject)}\n`);
      }),
    close: () => {
      if (file !== undefined) closeSync(file);
    },
  };
}
