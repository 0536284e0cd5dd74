import { t } from "elysia";

const strict = { additionalProperties: false } as const;
const username = t.String({
  minLength: 1,
  maxLength: 128,
  description: "2 to 64 of a-z, 0-9, dot, underscore, hyphen",
});
const email = t.String({ minLength: 1, maxLength: 254 });
const password = t.String({ minLength: 1, maxLength: 4096 });
const token = t.String({ minLength: 1, maxLength: 256, description: "From the link in the mail; works once" });

export const RegisterBody = t.Object(
  { username, email, password, invitation: t.Optional(t.String({ minLength: 1, maxLength: 256 })) },
  { ...strict, examples: [{ username: "ada", email: "ada@example.org", password: "…" }] },
);
export const RegisterAnswer = t.Object(
  { status: t.Literal("verification_sent") },
  { description: "A mail tells how to go on; the same where the address has an account" },
);

export const TokenBody = t.Object({ token }, { ...strict, examples: [{ token: "…" }] });
export const EmailBody = t.Object({ email }, { ...strict, examples: [{ email: "ada@example.org" }] });
export const EmailAnswer = t.Object(
  { status: t.Literal("accepted") },
  { description: "The same whether or not the address has an account" },
);
export const ResetBody = t.Object(
  { token, new_password: password },
  { ...strict, examples: [{ token: "…", new_password: "…" }] },
);
export const ChangePasswordBody = t.Object(
  { current_password: password, new_password: password },
  { ...strict, examples: [{ current_password: "…", new_password: "…" }] },
);
export const ProfileBody = t.Object(
  {
    username: t.Optional(username),
    email: t.Optional(email),
    current_password: t.Optional(password),
  },
  { ...strict, minProperties: 1, examples: [{ email: "ada@example.net", current_password: "…" }] },
);

const instant = t.String({ format: "date-time" });
const origin = { ip: t.Nullable(t.String()), user_agent: t.Nullable(t.String()) };
export const ExportAnswer = t.Object(
  {
    exported_at: instant,
    user: t.Record(t.String(), t.Unknown()),
    rights: t.Record(t.String(), t.Unknown()),
    sessions: t.Array(
      t.Object({
        id: t.String(),
        device_name: t.Nullable(t.String()),
        ...origin,
        created_at: instant,
        last_seen_at: instant,
        expires_at: instant,
        ended_at: t.Nullable(instant),
        ended_reason: t.Nullable(t.String()),
      }),
    ),
    devices: t.Array(t.Object({ ...origin, created_at: instant, last_seen_at: instant })),
    pending_email: t.Nullable(t.String({ description: "A new address that its link has not proven yet" })),
    invitations: t.Array(
      t.Object({
        roles: t.Array(t.String()),
        created_at: instant,
        expires_at: instant,
        used_at: t.Nullable(instant),
      }),
    ),
    logins: t.Array(
      t.Object({
        time: instant,
        outcome: t.String(),
        reason: t.String(),
        ...origin,
        risk_score: t.Nullable(t.Number({ description: "How unusual a good one was" })),
        risk_signals: t.Nullable(t.Array(t.String())),
      }),
    ),
    usual_sign_ins: t.Nullable(
      t.Record(t.String(), t.Unknown(), { description: "What was learnt of when and where you sign in" }),
    ),
    unusual_hours: t.Array(
      t.Object({
        hour: instant,
        score: t.Number(),
        signals: t.Array(t.String()),
        good: t.Number(),
        failed: t.Number(),
      }),
    ),
    events: t.Array(
      t.Object({
        time: instant,
        action: t.String(),
        outcome: t.String(),
        ...origin,
        details: t.Record(t.String(), t.Unknown()),
      }),
    ),
  },
  { description: "Everything that is kept on you" },
);
