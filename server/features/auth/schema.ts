import { t } from "elysia";
import { MAX_PASSWORD_BYTES } from "../passwords/service.ts";

const strict = { additionalProperties: false } as const;

export const LoginBody = t.Object(
  {
    username: t.String({ minLength: 1, maxLength: 320, description: "User name or e-mail address" }),
    password: t.String({ minLength: 1, maxLength: MAX_PASSWORD_BYTES }),
    cookies: t.Optional(
      t.Boolean({ description: "For browsers: the refresh token goes into an HttpOnly cookie and not into the body" }),
    ),
    device_token: t.Optional(
      t.String({ minLength: 1, maxLength: 128, description: "What this device was given to be known by" }),
    ),
    remember_device: t.Optional(
      t.Boolean({ description: "Answer a device_token: with it, failures of strangers do not slow this device down" }),
    ),
    device_name: t.Optional(
      t.String({
        maxLength: 100,
        pattern: "^[^\\u0000-\\u001f\\u007f]*$",
        description: "What the person calls this device",
      }),
    ),
  },
  { ...strict, examples: [{ username: "admin", password: "correct horse battery staple" }] },
);

export const RefreshBody = t.Object(
  {
    refresh_token: t.Optional(t.String({ minLength: 1, description: "Left out where the cookie has it" })),
  },
  strict,
);

export const LogoutBody = t.Object(
  {
    refresh_token: t.Optional(t.String({ minLength: 1 })),
    all: t.Optional(t.Boolean({ description: "End every session of the user" })),
  },
  { ...strict, examples: [{ all: false }] },
);

export const StepUpBody = t.Object({ password: t.String({ minLength: 1, maxLength: MAX_PASSWORD_BYTES }) }, strict);

/** Gateways pass on whatever they were asked with, so nothing here is a reason for a 422. */
export const VerifyQuery = t.Object(
  {
    permission: t.Optional(t.String({ description: "Answer 403 unless the user has it" })),
    resource: t.Optional(t.String({ description: "What it is wanted on" })),
  },
  { additionalProperties: true },
);

const accessToken = {
  access_token: t.String({ description: "JWT; send it as Authorization: Bearer" }),
  token_type: t.Literal("bearer"),
  expires_in: t.Integer({ description: "Seconds" }),
};

export const AccessTokenAnswer = t.Object(accessToken, {
  description: "A new access token with a fresh auth_time; the refresh token stays as it is",
});

export const TokenAnswer = t.Object(
  {
    ...accessToken,
    refresh_token: t.Optional(t.String({ description: "Good for one use; in cookie mode it is in the cookie alone" })),
    refresh_expires_in: t.Integer({ description: "Seconds" }),
    device_token: t.Optional(t.String({ description: "Show it at the next login of this user on this device" })),
    session_id: t.String({ format: "uuid" }),
  },
  { description: "The tokens of the session" },
);

export const VerifyAnswer = t.Object(
  {
    active: t.Literal(true),
    sub: t.String({ format: "uuid" }),
    username: t.String(),
    roles: t.Array(t.String()),
    scope: t.String({ description: "Permissions, space-separated" }),
    sid: t.Optional(t.String({ format: "uuid", description: "Not there for a token of the earlier service" })),
    jti: t.Optional(t.String()),
    iat: t.Integer(),
    exp: t.Integer(),
  },
  { description: "The token is good and its session counts" },
);
