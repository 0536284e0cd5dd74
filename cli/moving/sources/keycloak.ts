import type { Draft } from "../../../server/features/moving/service.ts";
import { draft, type Source } from "../source.ts";
import { type Fields, fieldsIn, flagIn, isFields, jsonIn, textIn, textsIn, timeIn } from "../values.ts";

/** Roles that every user of a realm has. */
const EVERYBODYS = /^(default-roles-.*|offline_access|uma_authorization)$/;

/** A realm as `kc.sh export` writes it: one file, or a folder with `realm-users-0.json` and so on. */
export const keycloak: Source = {
  listIn: "$.users.*",
  listInArray: "$.*.users.*",
  reader: () => (user) => {
    if (textIn(user, "serviceAccountClientId")) return { leftOut: "service account" };
    return draft({
      externalId: textIn(user, "id"),
      username: textIn(user, "username"),
      email: textIn(user, "email"),
      emailVerified: flagIn(user, "emailVerified"),
      status: flagIn(user, "enabled") === false ? "disabled" : "active",
      createdAt: timeIn(user, "createdTimestamp"),
      passwordChangeRequired: textsIn(user, "requiredActions").includes("UPDATE_PASSWORD"),
      roles: rolesOf(user),
      ...passwordOf(user),
    });
  },
};

/** Realm roles by their name, those of clients as "client/role", groups as "/path". */
function rolesOf(user: Fields): string[] {
  const clients = fieldsIn(user, "clientRoles");
  const ofClients = Object.keys(clients).flatMap((client) =>
    textsIn(clients, client).map((role) => `${client}/${role}`),
  );
  const all = [...textsIn(user, "realmRoles"), ...ofClients, ...textsIn(user, "groups")];
  return all.filter((role) => !EVERYBODYS.test(role));
}

function passwordOf(user: Fields): Partial<Draft> {
  const credentials = Array.isArray(user.credentials) ? user.credentials.filter(isFields) : [];
  const password = credentials.find((credential) => credential.type === "password");
  if (!password) return {};
  const changed = timeIn(password, "createdDate");
  return { ...(changed === undefined ? {} : { passwordChangedAt: changed }), ...hashOf(password) };
}

/** Up to version 7 everything stood in the credential itself. */
function hashOf(password: Fields): Pick<Draft, "passwordHash" | "passwordFault"> {
  const [secret, how] = [jsonIn(password, "secretData"), jsonIn(password, "credentialData")];
  const value = textIn(secret, "value") ?? textIn(password, "hashedSaltedValue") ?? "";
  const salt = textIn(secret, "salt") ?? textIn(password, "salt") ?? "";
  const algorithm = textIn(how, "algorithm") ?? textIn(password, "algorithm") ?? "";
  const rounds = textIn(how, "hashIterations") ?? textIn(password, "hashIterations") ?? "";
  switch (algorithm) {
    case "pbkdf2":
    case "pbkdf2-sha256":
    case "pbkdf2-sha512":
      return { passwordHash: `$${algorithm}$${rounds}$${salt}$${value}` };
    case "argon2":
      return { passwordHash: argon2Of(fieldsIn(how, "additionalParameters"), rounds, salt, value) };
    case "bcrypt":
      return { passwordHash: value };
    default:
      return { passwordFault: "its algorithm is none of Keycloak's own" };
  }
}

const VERSIONS: Readonly<Record<string, number>> = { "1.0": 16, "1.3": 19 };

/** As a PHC string. Keycloak keeps each parameter as a list of one. */
function argon2Of(parameters: Fields, passes: string, salt: string, value: string): string {
  const [type, version, memory, lanes] = ["type", "version", "memory", "parallelism"].map(
    (name) => textsIn(parameters, name)[0] ?? "",
  );
  const bare = (text: string) => text.replaceAll("=", "");
  return `$argon2${type}$v=${VERSIONS[version ?? ""]}$m=${memory},t=${passes},p=${lanes}$${bare(salt)}$${bare(value)}`;
}
