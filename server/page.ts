import { invalidField } from "./errors.ts";
import { isId } from "./ports/random.ts";

/** How many a page of a list holds where nobody says, and at most. */
export const DEFAULT_LIMIT = 50;
export const MAX_LIMIT = 200;

/** Which page of a list is asked for: `cursor` is the `next_cursor` of the one before. */
export interface PageAsked {
  readonly limit: number;
  readonly cursor?: string;
}

export interface Page<View> {
  readonly data: View[];
  /** Null at the end. */
  readonly next_cursor: string | null;
}

export const badCursor = () => invalidField("cursor", "Expected the next_cursor of a page");

/**
 * What the database is asked for, of a list whose cursors are the ids of its rows: one row more than the page holds, by
 * which it is known that another page follows.
 *
 * @throws AppError VALIDATION_FAILED for a cursor that is no id
 */
export function rowsAsked({ limit, cursor }: PageAsked): { limit: number; after?: string } {
  if (cursor !== undefined && !isId(cursor)) throw badCursor();
  return { limit: limit + 1, ...(cursor === undefined ? {} : { after: cursor }) };
}

/**
 * The page that begins with these, of which there is one more where another page follows.
 *
 * @param cursorOf what the next page begins after
 */
export function pageOf<View>(views: readonly View[], limit: number, cursorOf: (last: View) => string): Page<View> {
  const data = views.slice(0, limit);
  const last = data.at(-1);
  return { data, next_cursor: views.length > limit && last ? cursorOf(last) : null };
}
