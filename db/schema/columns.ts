import { timestamp, uuid } from "drizzle-orm/pg-core";

/** A UUIDv7 that the program makes, so that rows sort by the time they were made. */
export const id = () => uuid("id").primaryKey();

/** A point in time, UTC. The program's clock writes it; SQL's now() decides nothing. */
export const instant = (name: string) => timestamp(name, { withTimezone: true, precision: 3, mode: "date" });
