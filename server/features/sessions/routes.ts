import { Elysia } from "elysia";
import type { Deps } from "../../deps.ts";
import { access } from "../../http/access.ts";
import { callerOf } from "../../http/context.ts";
import { describe } from "../../http/openapi.ts";
import { IdParams, PageQuery } from "../../http/shapes.ts";
import { SessionPageAnswer } from "./schema.ts";
import { endOtherSessions, endOwnSession, endSessionsOf, listSessionPage } from "./service.ts";

const tag = "Sessions";
const example = {
  data: [
    {
      id: "019b76da-a800-7000-8000-000000000000",
      device_name: "Laptop",
      device: "Firefox 128 on Linux",
      ip: "203.0.113.9",
      created_at: "2026-01-01T00:00:00.000Z",
      last_seen_at: "2026-01-01T08:00:00.000Z",
      expires_at: "2026-01-31T00:00:00.000Z",
      current: true,
    },
  ],
  next_cursor: null,
};

export const sessionRoutes = (deps: Deps) =>
  new Elysia({ name: "sessions", prefix: "/api/v1/users" })
    .use(access(deps))
    .get("/me/sessions", ({ principal, query }) => listSessionPage(deps, principal.id, query, principal.sessionId), {
      access: "user",
      query: PageQuery,
      detail: describe({
        tag,
        summary: "Where you are logged in",
        bearer: true,
        answers: { 200: SessionPageAnswer },
        errors: ["VALIDATION_FAILED"],
        example,
      }),
    })
    .delete(
      "/me/sessions/:id",
      async ({ principal, params, request, set }) => {
        await endOwnSession(deps, principal, params.id, callerOf(request));
        set.status = 204;
      },
      {
        access: "user",
        params: IdParams,
        detail: describe({
          tag,
          summary: "Log out one of your sessions",
          description: "Its tokens are dead at once. Also the session that asks.",
          bearer: true,
          answers: { 204: "The session has ended" },
          errors: ["NOT_FOUND"],
        }),
      },
    )
    .delete(
      "/me/sessions",
      async ({ principal, request, set }) => {
        await endOtherSessions(deps, principal, callerOf(request));
        set.status = 204;
      },
      {
        access: "user",
        detail: describe({
          tag,
          summary: "Log out everywhere else",
          description: "Every session of yours ends at once, but for the one that asks.",
          bearer: true,
          answers: { 204: "The other sessions have ended" },
        }),
      },
    )
    .get(
      "/:id/sessions",
      ({ principal, params, query }) => listSessionPage(deps, params.id, query, principal.sessionId, deps.db.replica),
      {
        access: { permission: "sessions:read" },
        params: IdParams,
        query: PageQuery,
        detail: describe({
          tag,
          summary: "Where a user is logged in",
          description: "Asks for the permission sessions:read.",
          bearer: true,
          answers: { 200: SessionPageAnswer },
          errors: ["VALIDATION_FAILED", "FORBIDDEN", "NOT_FOUND"],
          example,
        }),
      },
    )
    .delete(
      "/:id/sessions",
      async ({ principal, params, request, set }) => {
        const by = { actor: { kind: "user", id: principal.id }, caller: callerOf(request) } as const;
        await endSessionsOf(deps, params.id, by);
        set.status = 204;
      },
      {
        access: { permission: "sessions:revoke" },
        params: IdParams,
        detail: describe({
          tag,
          summary: "Log a user out everywhere",
          description: "Every session of theirs ends at once. Asks for the permission sessions:revoke.",
          bearer: true,
          answers: { 204: "Their sessions have ended" },
          errors: ["FORBIDDEN", "NOT_FOUND"],
        }),
      },
    );
