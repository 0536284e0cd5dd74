import type { Draft } from "../../../server/features/moving/service.ts";
import { firebaseHash, HashRefused } from "../../../server/features/passwords/service.ts";
import { draft, type Source } from "../source.ts";
import { type Fields, fieldsIn, isFields, textIn, textsIn, timeIn } from "../values.ts";

/**
 * Identities of Ory Kratos as its admin API lists them (`GET /admin/identities?include_credential=password`) or
 * `kratos list identities --format json` does. E-mail address and user name are the traits of these names.
 */
export const kratos: Source = {
  listIn: "$.identities.*",
  reader: () => (identity) => {
    const traits = fieldsIn(identity, "traits");
    const password = fieldsIn(fieldsIn(identity, "credentials"), "password");
    const email = textIn(traits, "email") ?? textsIn(password, "identifiers").find((name) => name.includes("@"));
    const address = addressesOf(identity).find((one) => one.value === email);
    return draft({
      externalId: textIn(identity, "id"),
      username: textIn(traits, "username") ?? textsIn(password, "identifiers").find((name) => !name.includes("@")),
      email,
      emailVerified: address?.verified === true,
      emailVerifiedAt: address && timeIn(address, "verified_at"),
      status: identity.state === "inactive" ? "disabled" : "active",
      createdAt: timeIn(identity, "created_at"),
      roles: textsIn(fieldsIn(identity, "metadata_public"), "roles"),
      ...hashOf(textIn(fieldsIn(password, "config"), "hashed_password")),
    });
  },
};

const addressesOf = (identity: Fields): readonly Fields[] =>
  Array.isArray(identity.verifiable_addresses) ? identity.verifiable_addresses.filter(isFields) : [];

/** Kratos's own form of Firebase's scrypt, with the parameters of the project in each hash. */
const FIRESCRYPT = /^\$firescrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=1\$([^$]*)\$([^$]*)\$([^$]*)\$([^$]*)$/;

function hashOf(hash: string | undefined): Pick<Draft, "passwordHash" | "passwordFault"> {
  if (hash === undefined) return {};
  const parts = FIRESCRYPT.exec(hash);
  if (!parts) return { passwordHash: hash };
  const [salt, digest, saltSeparator, signerKey] = parts.slice(3).map((part) => Buffer.from(part, "base64"));
  if (!salt || !digest || !saltSeparator || !signerKey) return { passwordFault: "it is damaged" };
  try {
    const parameters = { signerKey, saltSeparator, memCost: Number(parts[1]), rounds: Number(parts[2]) };
    return { passwordHash: firebaseHash(salt, digest, parameters) };
  } catch (error) {
    if (error instanceof HashRefused) return { passwordFault: error.message };
    throw error;
  }
}
