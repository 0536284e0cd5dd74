import { systemClock } from "../../../server/ports/clock.ts";
import { draft, type Source } from "../source.ts";
import { flagIn, jsonIn, textIn, textsIn, timeIn } from "../values.ts";

/** The table auth.users of Supabase: as CSV, as a JSON list, or a row on each line. Roles are those in the app metadata. */
export const supabase: Source = {
  csv: "maybe",
  reader: () => (user) => {
    if (flagIn(user, "is_anonymous")) return { leftOut: "anonymous" };
    if (timeIn(user, "deleted_at")) return { leftOut: "deleted" };
    const metadata = jsonIn(user, "raw_app_meta_data");
    const role = textIn(metadata, "role");
    const bannedUntil = timeIn(user, "banned_until");
    const verifiedAt = timeIn(user, "email_confirmed_at", "confirmed_at");
    return draft({
      externalId: textIn(user, "id"),
      email: textIn(user, "email"),
      emailVerified: verifiedAt !== undefined,
      emailVerifiedAt: verifiedAt,
      status:
        bannedUntil !== undefined && Date.parse(bannedUntil) > systemClock.now().getTime() ? "disabled" : "active",
      passwordHash: textIn(user, "encrypted_password"),
      createdAt: timeIn(user, "created_at"),
      lastLoginAt: timeIn(user, "last_sign_in_at"),
      roles: [...textsIn(metadata, "roles"), ...(role === undefined ? [] : [role])],
    });
  },
};
