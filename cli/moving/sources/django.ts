import type { Draft } from "../../../server/features/moving/service.ts";
import { draft, type LeftOut, type Source } from "../source.ts";
import { type Fields, fieldsIn, flagIn, textIn, timeIn } from "../values.ts";

/** What Django writes in place of a hash for who has no password. */
const NO_PASSWORD = "!";

/**
 * `manage.py dumpdata`, as a list or (`--format jsonl`) an entry on each line. Groups are roles, and so are "superuser"
 * and "staff". They have to stand before the users unless the dump has natural keys, as dumpdata does by itself.
 */
const djangoDump = (userModels: RegExp, groupModels: RegExp, isPerson: (fields: Fields) => boolean): Source => ({
  reader() {
    const groups = new Map<string, string>();
    return (entry): Draft | LeftOut => {
      const [model, key, fields] = [textIn(entry, "model") ?? "", textIn(entry, "pk"), fieldsIn(entry, "fields")];
      if (groupModels.test(model) && key !== undefined) groups.set(key, textIn(fields, "name") ?? key);
      if (!userModels.test(model)) return { leftOut: "no user" };
      if (!isPerson(fields)) return { leftOut: "service account" };
      const hash = textIn(fields, "password");
      return draft({
        externalId: textIn(fields, "uuid") ?? key,
        username: textIn(fields, "username"),
        email: textIn(fields, "email"),
        status: flagIn(fields, "is_active") === false ? "disabled" : "active",
        passwordHash: hash?.startsWith(NO_PASSWORD) ? undefined : hash,
        passwordChangedAt: timeIn(fields, "password_change_date"),
        createdAt: timeIn(fields, "date_joined"),
        lastLoginAt: timeIn(fields, "last_login"),
        roles: rolesOf(fields, groups),
      });
    };
  },
});

function rolesOf(fields: Fields, groups: ReadonlyMap<string, string>): string[] {
  const listed = Array.isArray(fields.groups) ? fields.groups : [];
  const named = listed.map((group) => {
    const key = String(Array.isArray(group) ? group[0] : group);
    return groups.get(key) ?? key;
  });
  return [
    ...named,
    ...(flagIn(fields, "is_superuser") ? ["superuser"] : []),
    ...(flagIn(fields, "is_staff") ? ["staff"] : []),
  ];
}

export const django = djangoDump(/\.(\w*user|account)$/i, /^auth\.group$/i, () => true);

const SERVICE_ACCOUNT = /service_account$/;

/** authentik is a Django application: `ak dumpdata authentik_core.Group authentik_core.User`. */
export const authentik = djangoDump(
  /^authentik_core\.user$/i,
  /^authentik_core\.group$/i,
  (fields) => !SERVICE_ACCOUNT.test(textIn(fields, "type") ?? "") && textIn(fields, "username") !== "AnonymousUser",
);
