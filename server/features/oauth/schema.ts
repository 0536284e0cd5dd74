import { t } from "elysia";

const authentication = {
  client_id: t.Optional(t.String({ description: "Where the client does not authenticate by HTTP Basic" })),
  client_secret: t.Optional(t.String({ description: "Where the client does not authenticate by HTTP Basic" })),
};

export const TokenForm = t.Object({
  token: t.String({ minLength: 1, description: "An access token or a refresh token" }),
  token_type_hint: t.Optional(t.String({ description: "Not needed: tokens tell their kind" })),
  ...authentication,
});

const whose = {
  sub: t.String({ format: "uuid" }),
  client_id: t.String({ description: "Whom the token was made for" }),
  username: t.String(),
  sid: t.String({ format: "uuid" }),
  iat: t.Integer(),
  exp: t.Integer(),
};

const ActiveAccessToken = t.Object({
  active: t.Literal(true),
  token_type: t.Literal("Bearer"),
  iss: t.String(),
  aud: t.Union([t.String(), t.Array(t.String())]),
  ...whose,
  scope: t.String({ description: "Permissions as they are now, space-separated" }),
  roles: t.Array(t.String(), { description: "As they are now" }),
  jti: t.String(),
  auth_time: t.Integer(),
  cnf: t.Optional(t.Object({}, { additionalProperties: true, description: "RFC 7800: what the token is bound to" })),
});

const ActiveRefreshToken = t.Object({
  active: t.Literal(true),
  token_type: t.Literal("refresh_token"),
  ...whose,
});

const Inactive = t.Object({ active: t.Literal(false) }, { additionalProperties: false });

export const IntrospectionAnswer = t.Union([ActiveAccessToken, ActiveRefreshToken, Inactive], {
  description: "An access token, a refresh token, or nothing that counts",
});
