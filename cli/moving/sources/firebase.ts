import type { Draft } from "../../../server/features/moving/service.ts";
import { type FirebaseParameters, firebaseHash, HashRefused } from "../../../server/features/passwords/service.ts";
import { draft, type Source } from "../source.ts";
import { type Fields, flagIn, jsonIn, textIn, textsIn, timeIn } from "../values.ts";

/** `firebase auth:export users.json --format=json`. Roles are those of the custom claim "roles". */
export const firebase: Source = {
  listIn: "$.users.*",
  reader:
    ({ firebase: parameters }) =>
    (user) =>
      draft({
        externalId: textIn(user, "localId"),
        email: textIn(user, "email"),
        emailVerified: flagIn(user, "emailVerified"),
        status: flagIn(user, "disabled") ? "disabled" : "active",
        createdAt: timeIn(user, "createdAt"),
        lastLoginAt: timeIn(user, "lastSignedInAt", "lastLoginAt"),
        passwordChangedAt: timeIn(user, "passwordUpdatedAt"),
        roles: textsIn(jsonIn(user, "customAttributes"), "roles"),
        ...hashOf(user, parameters),
      }),
};

function hashOf(
  user: Fields,
  parameters: FirebaseParameters | undefined,
): Pick<Draft, "passwordHash" | "passwordFault"> {
  const hash = textIn(user, "passwordHash");
  if (hash === undefined) return {};
  if (!parameters) return { passwordFault: "it needs the project's parameters (--hash-config)" };
  const bytes = (text: string | undefined) => Buffer.from(text ?? "", "base64");
  try {
    return { passwordHash: firebaseHash(bytes(textIn(user, "salt")), bytes(hash), parameters) };
  } catch (error) {
    if (error instanceof HashRefused) return { passwordFault: error.message };
    throw error;
  }
}
