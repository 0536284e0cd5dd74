import { resolve } from "node:path";
import { failed, misused } from "../../config/errors.ts";
import { BATCH_SIZE, type ExportedUser } from "../../server/features/moving/service.ts";
import type { CommandContext, Implementation, Outcome } from "../command.ts";
import { csvLine } from "../csv.ts";
import { untilInterrupted } from "../interrupt.ts";
import { type Io, yellow } from "../io.ts";
import { type Mover, withMover } from "../moving/mover.ts";
import { createPace } from "../moving/pace.ts";
import { intoFile, type Sink, STANDARD_OUTPUT } from "../sink.ts";

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

interface Format {
  readonly head: string;
  line(user: ExportedUser): string;
}

/** Roles with spaces between them, roles on things as JSON. */
function textIn(value: ExportedUser[keyof ExportedUser]): string {
  if (!Array.isArray(value)) return String(value ?? "");
  return value.every((entry) => typeof entry === "string") ? value.join(" ") : JSON.stringify(value);
}

const FORMATS: Readonly<Record<string, Format>> = {
  primer: { head: "", line: (user) => JSON.stringify(user) },
  csv: {
    head: `${COLUMNS.join(",")}\r\n`,
    line: (user) => `${csvLine(COLUMNS.map((name) => textIn(user[name])))}\r`,
  },
};

/** Exports every user with the hash of their password: to a file that only its owner can read, or standard output. */
export const exportCommand: Implementation = {
  async run(context): Promise<Outcome> {
    const path = context.arguments[0] ?? "-";
    const name = String(context.options.format ?? "primer");
    const format = Object.hasOwn(FORMATS, name) ? FORMATS[name] : undefined;
    if (!format) throw misused(`--format: expected one of ${Object.keys(FORMATS).join(", ")}, not ${name}.`);
    if (path === "-" && context.options.json) {
      throw misused(
        "With --json, standard output has the report.",
        "Name a file for the users: primer users export FILE",
      );
    }
    const copy = (sink: Sink) =>
      withMover(context, (mover) =>
        untilInterrupted((stop) => writeUsers({ mover, sink, format, name, stop, io: context.io })),
      );
    const counts = path === "-" ? await copy(STANDARD_OUTPUT) : await intoFile(resolve(path), copy);
    return outcomeOf(context, path, counts);
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
  readonly format: Format;
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
