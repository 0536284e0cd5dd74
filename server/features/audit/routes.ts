import { Elysia } from "elysia";
import type { Deps } from "../../deps.ts";
import { invalidField } from "../../errors.ts";
import { type Access, access, actorOf, admit } from "../../http/access.ts";
import { describe } from "../../http/openapi.ts";
import { DEFAULT_LIMIT } from "../../page.ts";
import { EventLines, EventsAnswer, EventsQuery } from "./schema.ts";
import { listEventPage } from "./service.ts";
import { streamEvents } from "./stream-events.ts";

/** An idle connection counts as such after this long (seconds) once nothing more will be sent on it. */
const DROP_AFTER_SECONDS = 1;

const READERS: Access = { permission: "audit:read" };

/** Lines have no pages, and whoever asks for one is not given everything instead. @throws AppError VALIDATION_FAILED */
function assertNoPage(request: Request): void {
  const given = new URL(request.url).searchParams; // the schema has filled in the limit
  const path = ["cursor", "limit"].find((name) => given.has(name));
  if (path) throw invalidField(path, "Not with format=ndjson, which has no pages: say from and to");
}

const example = {
  data: [
    {
      id: "019b76da-a800-7000-8000-000000000000",
      time: "2026-03-01T12:00:00.000Z",
      action: "login",
      outcome: "success",
      actor: { kind: "user", id: "019b76da-a800-7000-8000-000000000001" },
      subject: { kind: "session", id: "019b76da-a800-7000-8000-000000000002" },
      ip: "192.0.2.1",
      user_agent: "Mozilla/5.0",
      request_id: "019b76da-a800-7000-8000-000000000003",
      details: {},
    },
  ],
  next_cursor: null,
};

export const auditRoutes = (deps: Deps) =>
  new Elysia({ name: "audit", prefix: "/api/v1/audit" }).use(access(deps)).get(
    "",
    async ({ query, principal, request, server }) => {
      const { format, limit = DEFAULT_LIMIT, cursor, ...asked } = query;
      if (format !== "ndjson" || request.method === "HEAD") return listEventPage(deps, { ...asked, limit, cursor });
      assertNoPage(request);
      const { actor, caller } = actorOf(principal, request);
      const body = await streamEvents(deps, {
        query: asked,
        by: { actor, ...(caller ? { caller } : {}) },
        assertMayRead: async () => void (await admit(deps, READERS, request)),
        signal: request.signal,
        drop: () => server?.timeout(request, DROP_AFTER_SECONDS),
      });
      return new Response(body, { headers: { "content-type": "application/x-ndjson" } });
    },
    {
      access: READERS,
      query: EventsQuery,
      detail: describe({
        tag: "Audit log",
        summary: "What happened: who did what to whom, from where, and how it ended",
        description:
          "Permission audit:read. With format=ndjson every event that fits, without cursor and limit. An answer that ends as HTTP ends one is whole; else the connection is cut off: where the reader lost the permission or the session, the token has expired, 15 minutes are over, or the database is away. Go on with `to` one millisecond after the time of the last line, and leave out the lines of that time that you have. Each such export is an event itself.",
        bearer: true,
        answers: { 200: EventsAnswer },
        otherMediaTypes: { "application/x-ndjson": EventLines },
        errors: ["FORBIDDEN", "VALIDATION_FAILED"],
        example,
      }),
    },
  );
