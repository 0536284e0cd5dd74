import { sql } from "drizzle-orm";

/** A list as one parameter: the statement is the same however long it is, and the indexes are used. */
export const anyOf = (values: readonly string[]) =>
  sql`ANY(ARRAY(SELECT jsonb_array_elements_text(${JSON.stringify(values)}::text::jsonb)))`;

/** The same for ids. */
export const anyIdOf = (values: readonly string[]) =>
  sql`ANY(ARRAY(SELECT jsonb_array_elements_text(${JSON.stringify(values)}::text::jsonb)::uuid))`;
