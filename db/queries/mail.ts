import { sql } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { mailCounters } from "../schema/mail.ts";

/** So many mails of one kind may one recipient get within a time. */
export interface MailLimits {
  readonly shortly: { readonly count: number; readonly ms: number };
  readonly daily: { readonly count: number; readonly ms: number };
}

/**
 * Counts a mail to a recipient where there is still room for it. One statement: whoever comes at the same moment waits
 * for its row until the transaction ends, on whichever node.
 *
 * @returns when the ones that count were queued, this one the last; undefined where there is no room, then nothing was
 *   counted
 */
export async function takeMailRoom(
  tx: Tx,
  { recipient, template }: { readonly recipient: string; readonly template: string },
  { shortly, daily }: MailLimits,
  now: Date,
): Promise<Date[] | undefined> {
  const at = sql`${now.toISOString()}::timestamptz`;
  const since = (ms: number) => sql`${new Date(now.getTime() - ms).toISOString()}::timestamptz`;
  const recent = sql`ARRAY(SELECT t FROM unnest(${mailCounters.times}) AS t WHERE t > ${since(daily.ms)} ORDER BY t)`;
  const countSince = (ms: number) =>
    sql`(SELECT count(*) FROM unnest(${mailCounters.times}) AS t WHERE t > ${since(ms)})`;
  const [row] = await tx
    .insert(mailCounters)
    .values({ recipient, template, times: [now], lastAt: now })
    .onConflictDoUpdate({
      target: [mailCounters.recipient, mailCounters.template],
      set: { times: sql`${recent} || ${at}`, lastAt: now },
      setWhere: sql`${countSince(shortly.ms)} < ${shortly.count} AND ${countSince(daily.ms)} < ${daily.count}`,
    })
    .returning({ times: mailCounters.times });
  return row?.times;
}
