import { sql } from "drizzle-orm";
import { check, index, integer, jsonb, pgTable, text, uniqueIndex, uuid } from "drizzle-orm/pg-core";
import { id, instant } from "./columns.ts";
import { users } from "./users.ts";

/** What is usual of an account or a network. Amounts fade: after 30 days each counts half. Times are milliseconds since 1970. */
export interface Usual {
  /** When the first attempt was. */
  readonly since: number;
  /** As of when the amounts are. */
  readonly asOf: number;
  readonly good: number;
  readonly failed: number;
  /** The most attempts in one hour. */
  readonly busiest: number;
  /** Good sign-ins by the hour of the day, UTC. */
  readonly hours: readonly number[];
  /** Good sign-ins by country, of accounts only. */
  readonly countries: Readonly<Record<string, number>>;
}

/** What happened in one hour, which is held against what was usual before it. */
export interface HourOfSignIns {
  readonly begin: number;
  readonly good: number;
  readonly failed: number;
  readonly countries: Readonly<Record<string, number>>;
  /** The highest score so far, and everything that was unusual. */
  readonly score: number;
  readonly signals: readonly string[];
  /** Whether the audit log has been told. */
  readonly told: boolean;
}

/** The last hour in which something happened is not part of what is usual until the next such hour begins. */
export interface Baseline {
  readonly usual: Usual;
  readonly hour: HourOfSignIns;
}

export const accountBaselines = pgTable(
  "account_baselines",
  {
    userId: uuid("user_id")
      .primaryKey()
      .references(() => users.id, { onDelete: "cascade" }),
    lastHour: instant("last_hour").notNull(),
    baseline: jsonb("baseline").$type<Baseline>().notNull(),
  },
  (t) => [index("account_baselines_last_hour_idx").on(t.lastHour)],
);

/** By network as "203.0.113.0/24" or "2001:db8:7::/48". */
export const networkBaselines = pgTable(
  "network_baselines",
  {
    network: text("network").primaryKey(),
    lastHour: instant("last_hour").notNull(),
    baseline: jsonb("baseline").$type<Baseline>().notNull(),
  },
  (t) => [index("network_baselines_last_hour_idx").on(t.lastHour)],
);

/** An hour of an account's or a network's sign-ins that was unusual. */
export const signInAnomalies = pgTable(
  "sign_in_anomalies",
  {
    id: id(),
    userId: uuid("user_id").references(() => users.id, { onDelete: "cascade" }),
    network: text("network"),
    hour: instant("hour").notNull(),
    score: integer("score").notNull(),
    signals: text("signals").array().notNull(),
    good: integer("good").notNull(),
    failed: integer("failed").notNull(),
  },
  (t) => [
    uniqueIndex("sign_in_anomalies_user_id_hour_key").on(t.userId, t.hour),
    uniqueIndex("sign_in_anomalies_network_hour_key").on(t.network, t.hour),
    index("sign_in_anomalies_hour_idx").on(t.hour),
    check("sign_in_anomalies_of_one", sql`num_nonnulls(${t.userId}, ${t.network}) = 1`),
  ],
);

/** Up to which login record the baselines have learnt: one row, locked by whoever learns. */
export const baselineCursor = pgTable(
  "baseline_cursor",
  {
    id: integer("id").primaryKey(),
    time: instant("time").notNull(),
    loginId: uuid("login_id").notNull(),
  },
  (t) => [check("baseline_cursor_one_row", sql`${t.id} = 1`)],
);
