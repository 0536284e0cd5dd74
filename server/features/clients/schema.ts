import { t } from "elysia";
import { DEFAULT_OVERLAP_MS, MAX_OVERLAP_MS } from "./service.ts";

const strict = { additionalProperties: false } as const;

export const ClientBody = t.Object(
  { name: t.String({ minLength: 1, maxLength: 128, description: "1 to 64 characters, unique" }) },
  { ...strict, examples: [{ name: "orders" }] },
);

export const RotateBody = t.Object(
  {
    overlap_seconds: t.Optional(
      t.Integer({
        minimum: 0,
        maximum: MAX_OVERLAP_MS / 1000,
        description: `How long the old secret goes on working; ${DEFAULT_OVERLAP_MS / 1000} where it is not said, 0 ends it now`,
      }),
    ),
  },
  { ...strict, examples: [{ overlap_seconds: 3600 }] },
);

const properties = {
  id: t.String({ format: "uuid", description: "Also the client_id" }),
  name: t.String(),
  created_at: t.String({ format: "date-time" }),
  secrets: t.Array(
    t.Object({
      created_at: t.String({ format: "date-time" }),
      expires_at: t.Union([t.String({ format: "date-time" }), t.Null()]),
    }),
    { description: "Those that count now, the newest first: two while one is replaced. Never the secrets themselves" },
  ),
};

export const ClientAnswer = t.Object(
  { ...properties, client_secret: t.String({ description: "Shown this once" }) },
  { description: "The client with its new secret" },
);

export const ClientPage = t.Object(
  { data: t.Array(t.Object(properties)), next_cursor: t.Union([t.String(), t.Null()]) },
  { description: "The newest clients first" },
);
