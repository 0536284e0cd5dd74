import type { Tx } from "../database.ts";
import { loginRecords } from "../schema/logins.ts";

export const insertLoginRecord = (tx: Tx, row: typeof loginRecords.$inferInsert) => tx.insert(loginRecords).values(row);
