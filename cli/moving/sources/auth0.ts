import type { Draft } from "../../../server/features/moving/service.ts";
import { draft, type Source } from "../source.ts";
import { type Fields, fieldsIn, flagIn, textIn, textsIn, timeIn } from "../values.ts";

/**
 * Auth0: what its support exports with password hashes (a user on each line), what the export job writes, and the files
 * that its own bulk import takes.
 */
export const auth0: Source = {
  reader: () => (user) =>
    draft({
      externalId: textIn(user, "user_id", "Id") ?? textIn(fieldsIn(user, "_id"), "$oid"),
      username: textIn(user, "username", "Username"),
      email: textIn(user, "email", "Email"),
      emailVerified: flagIn(user, "email_verified", "Email Verified"),
      status: flagIn(user, "blocked", "Blocked") ? "disabled" : "active",
      createdAt: timeIn(user, "created_at", "Created At"),
      passwordChangedAt: timeIn(user, "password_set_date"),
      lastLoginAt: timeIn(user, "last_login", "Last Login"),
      roles: [...textsIn(fieldsIn(user, "app_metadata"), "roles"), ...textsIn(authorization(user), "roles")],
      ...hashOf(user),
    }),
};

const authorization = (user: Fields) => fieldsIn(fieldsIn(user, "app_metadata"), "authorization");

function hashOf(user: Fields): Pick<Draft, "passwordHash" | "passwordFault"> {
  const plain = textIn(user, "passwordHash", "password_hash");
  if (plain !== undefined) return { passwordHash: plain };
  const custom = fieldsIn(user, "custom_password_hash");
  if (Object.keys(custom).length === 0) return {};
  const value = textIn(fieldsIn(custom, "hash"), "value") ?? "";
  // argon2, bcrypt, pbkdf2 and ldap are written whole; the others are digests taken once.
  return /^[${]/.test(value)
    ? { passwordHash: value }
    : { passwordFault: "it is not in PHC, modular crypt or LDAP form" };
}
