/** Whether an If-None-Match header names this tag (RFC 9110, section 13.1.2): a list, compared weakly. */
export const matchesEtag = (header: string | null, etag: string): boolean =>
  header?.split(",").some((tag) => tag.trim() === "*" || tag.trim().replace(/^W\//, "") === etag) ?? false;
