import { t } from "elysia";

const SessionSchema = t.Object({
  id: t.String({ format: "uuid" }),
  device_name: t.Nullable(t.String({ description: "What the person calls the device" })),
  device: t.String({ description: 'Read from the User-Agent header, such as "Firefox 128 on Linux"' }),
  ip: t.Nullable(t.String({ description: "Where the login came from" })),
  created_at: t.String({ format: "date-time" }),
  last_seen_at: t.String({ format: "date-time", description: "The last login, refresh or step-up" }),
  expires_at: t.String({ format: "date-time", description: "When it ends, however active" }),
  current: t.Boolean({ description: "Whether it is the one that asks" }),
});

export const SessionPageAnswer = t.Object(
  {
    data: t.Array(SessionSchema),
    next_cursor: t.Nullable(t.String({ description: "Where the next page begins; null at the end" })),
  },
  { description: "Live sessions, newest first" },
);
