import { failed } from "../../config/errors.ts";
import { BATCH_SIZE, type ExportedUser } from "../../server/features/moving/service.ts";
import type { CommandContext, Implementation, Outcome } from "../command.ts";
import { csvLine } from "../csv.ts";
import { untilInterrupted } from "../interrupt.ts";
import { type Io, yellow } from "../io.ts";
import { type Mover, withMover } from "../moving/mover.ts";
import { createPace } from "../moving/pace.ts";
import { type ExportFormat, type Sink, writeExport } from "../sink.ts";

const COLUMNS = [
  "id",
  "username",
  "email",
  "email_verified_at",
  "status",
  "roles",
  "grants",
  "password_hash",
  "password_pepper_id",
  "password_changed_at",
  "password_change_required",
  "created_at",
  "updated_at",
  "last_login_at",
  "deactivated_at",
] as const satisfies readonly (keyof ExportedUser)[];

/** Roles with spaces between them, roles on things as JSON. */
function textIn(value: ExportedUser[keyof ExportedUser]): string {
  if (!Array.isArray(value)) return String(value ?? "");
  return value.every((entry) => typeof entry === "string") ? value.join(" ") : JSON.stringify(value);
}

const FORMATS: Readonly<Record<string, ExportFormat<ExportedUser>>> = {
  primer: { head: "", line: (user) => JSON.stringify(user) },
  csv: {
    head: `${COLUMNS.join(",")}\r\n`,
    line: (user) => `${csvLine(COLUMNS.map((name) => textIn(user[name])))}\r`,
  },
};

/** Exports every user with the hash of their password: to a file that only its owner can read, or standard output. */
export const exportCommand: Implementation = {
  async run(context): Promise<Outcome> {
    const { path, written } = await writeExport(context, "primer users export", FORMATS, (sink, format, name) =>
      withMover(context, (mover) =>
        untilInterrupted((stop) => writeUsers({ mover, sink, format, name, stop, io: context.io })),
      ),
    );
    return outcomeOf(context, path, written);
  },
};

interface Counts {
  users: number;
  /** How many hashes are of use only with each of these peppers. */
  peppered: Record<string, number>;
}

interface Export {
  readonly mover: Mover;
  readonly sink: Sink;
  readonly format: ExportFormat<ExportedUser>;
  readonly name: string;
  readonly stop: AbortSignal;
  readonly io: Io;
}

async function writeUsers({ mover, sink, format, name, stop, io }: Export): Promise<Counts> {
  const counts: Counts = { users: 0, peppered: {} };
  const all = await mover.beginExport({ format: name });
  const pace = createPace(() => io.note(`${counts.users} of ${all} users\n`));
  await sink.write(format.head);
  for (let after: string | null = null; ; ) {
    const page: ExportedUser[] = await mover.exportPage(after);
    await sink.write(page.map((user) => `${format.line(user)}\n`).join(""));
    for (const { password_pepper_id: pepper } of page) {
      if (pepper !== null) counts.peppered[pepper] = (counts.peppered[pepper] ?? 0) + 1;
    }
    counts.users += page.length;
    if (stop.aborted) throw failed("Interrupted; the export is not complete.");
    pace();
    after = page.at(-1)?.id ?? null;
    if (page.length < BATCH_SIZE || after === null) return counts;
  }
}

function outcomeOf(context: CommandContext, path: string, { users, peppered }: Counts): Outcome {
  const bound = Object.values(peppered).reduce((sum, count) => sum + count, 0);
  if (bound > 0) {
    context.io.note(
      `${yellow(context.io, "!!")} Hashes bound to this installation's pepper: ${bound} (password_pepper_id names it). Only an installation with the same one can check them.\n`,
    );
  }
  const sentence = `Exported to ${path}: ${users} user${users === 1 ? "" : "s"}. It has their hashes in it: keep it as you keep secrets.env.\n`;
  return { json: { path, users, bound_to_pepper: bound, peppers: peppered }, text: path === "-" ? "" : sentence };
}
