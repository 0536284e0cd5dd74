import { unseal } from "../../config/secrets.ts";
import type { MailPayload } from "../../db/jobs.ts";
import type { Deps } from "../../server/deps.ts";
import type { QueuedMail } from "./prepare-mail.ts";

type Row = { data: MailPayload & { readonly sealed?: unknown }; state: string; created_on: string | Date };

/** A mail in the queue, whatever has become of it, with what was sealed opened. */
export async function findKeptMail(
  { db, secrets }: Pick<Deps, "db" | "secrets">,
  id: string,
): Promise<(QueuedMail & { readonly state: string }) | undefined> {
  const [row] = await db.query<Row>(
    "SELECT data, state::text, created_on FROM jobs.job WHERE name = 'send-mail' AND id = $1::uuid",
    [id],
  );
  if (!row) return undefined;
  const { sealed, ...rest } = row.data;
  const opened = typeof sealed === "string" ? JSON.parse(unseal(secrets.master, sealed, id).toString()) : sealed;
  const data = { ...rest, ...(opened ? { sealed: opened } : {}) } as MailPayload;
  return { id, data, state: row.state, createdAt: new Date(row.created_on) };
}
