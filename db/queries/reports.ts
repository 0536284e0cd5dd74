import type { Database } from "../database.ts";
import type { SignInFigures } from "../jobs.ts";

/** Over a whole day there may be much to count (milliseconds). */
const STATEMENT_MS = 60_000;

/** From a moment up to another one, which is not in it. */
export interface Span {
  readonly from: Date;
  readonly to: Date;
}

/** An address (of IPv6 its /64) with how many attempts from it failed. */
export interface FailingAddress {
  readonly address: string;
  readonly failures: number;
}

const FIGURES = `
SELECT
  (SELECT count(*)::int FROM login_records WHERE outcome = 'success' AND created_at >= $1::timestamptz AND created_at < $2::timestamptz) AS sign_ins,
  (SELECT count(*)::int FROM login_records WHERE outcome = 'failure' AND created_at >= $1::timestamptz AND created_at < $2::timestamptz) AS failures,
  (SELECT count(*)::int FROM users WHERE erased_at IS NULL AND created_at >= $1::timestamptz AND created_at < $2::timestamptz) AS new_users,
  (SELECT count(*)::int FROM audit_log WHERE action = 'account.locked' AND time >= $1::timestamptz AND time < $2::timestamptz) AS locked_accounts`;

const TOP_FAILING = `
SELECT address, count(*)::int AS failures FROM (
  SELECT CASE WHEN family(ip::inet) = 6 THEN network(set_masklen(ip::inet, 64))::text ELSE ip END AS address
  FROM login_records
  WHERE outcome = 'failure' AND ip IS NOT NULL AND created_at >= $1::timestamptz AND created_at < $2::timestamptz
) AS failed GROUP BY address ORDER BY failures DESC, address LIMIT $3::int`;

const unusual = (owner: "network" | "user_id") => `
SELECT ${owner}, max(score)::int AS score
FROM sign_in_anomalies WHERE ${owner} IS NOT NULL AND hour >= $1::timestamptz AND hour < $2::timestamptz
GROUP BY ${owner} ORDER BY score DESC, sum(failed) DESC, ${owner} LIMIT $3::int`;

type UnusualNetwork = { network: string; score: number };
type UnusualAccount = { user_id: string; score: number };

/** What the tables say of the sign-ins of a day and of another one, on a connection of its own. */
export const readSignInFigures = (
  database: Pick<Database, "exclusively">,
  { day, before, top, signal }: { day: Span; before: Span; top: number; signal: AbortSignal },
): Promise<{
  figures: SignInFigures;
  before: SignInFigures;
  topFailing: FailingAddress[];
  networks: UnusualNetwork[];
  accounts: UnusualAccount[];
}> =>
  database.exclusively(
    "primer report",
    async ({ query }) => {
      const bounds = ({ from, to }: Span) => [from.toISOString(), to.toISOString()];
      const [figures] = await query<SignInFigures & Record<string, unknown>>(FIGURES, bounds(day));
      const [earlier] = await query<SignInFigures & Record<string, unknown>>(FIGURES, bounds(before));
      const topFailing = await query<FailingAddress & Record<string, unknown>>(TOP_FAILING, [...bounds(day), top]);
      const among = [...bounds(day), top];
      const networks = await query<UnusualNetwork>(unusual("network"), among);
      const accounts = await query<UnusualAccount>(unusual("user_id"), among);
      if (!figures || !earlier) throw new Error("The database counted nothing");
      return { figures, before: earlier, topFailing, networks, accounts };
    },
    { statementMs: STATEMENT_MS, signal },
  );
