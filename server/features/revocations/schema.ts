import { t } from "elysia";

const JWT = "^[\\w-]+\\.[\\w-]+\\.[\\w-]+$";

export const RevocationsAnswer = t.Object(
  {
    revocations: t.String({
      pattern: JWT,
      description:
        "A JWT of type revocations+jwt, signed with a key of the key set. Claims: iss, iat, complete (true), and revoked: session ids (sid of access tokens), each with the time in seconds since 1970 from which on no token of it is valid any more. After a restore also not_before: access tokens with an earlier iat count no more.",
    }),
  },
  { description: "The sessions that ended while an access token of theirs may still be valid" },
);

export const RevocationEvents = t.String({
  description:
    "Server-sent events without a name. The data of each is a JWT as in GET /api/v1/revocations: first the whole list (complete is true), then what is new (complete is false) within two seconds. Comment lines come every ten seconds. A stream ends when primer cannot make sure of it, and when primer stops: connect again.",
});
