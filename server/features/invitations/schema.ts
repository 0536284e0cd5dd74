import { t } from "elysia";

const strict = { additionalProperties: false } as const;
export const InvitationBody = t.Object(
  {
    email: t.String({ minLength: 3, maxLength: 254, description: "Only this address can register with it" }),
    roles: t.Optional(t.Array(t.String({ maxLength: 63 }), { maxItems: 50, description: "user where none are given" })),
  },
  { ...strict, examples: [{ email: "ada@example.org", roles: ["user"] }] },
);

const invitation = {
  id: t.String({ format: "uuid" }),
  email: t.String(),
  roles: t.Array(t.String()),
  created_at: t.String({ format: "date-time" }),
  expires_at: t.String({ format: "date-time" }),
};

export const InvitationAnswer = t.Object(
  { ...invitation, token: t.String({ description: "Give it to the invited person; shown this once" }) },
  { description: "The invitation with its token" },
);

export const InvitationPage = t.Object(
  { data: t.Array(t.Object(invitation)), next_cursor: t.Nullable(t.String()) },
  { description: "Those that were neither used nor expired, the newest first" },
);
