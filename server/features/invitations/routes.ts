import { Elysia } from "elysia";
import type { Deps } from "../../deps.ts";
import { access, actorOf } from "../../http/access.ts";
import { describe } from "../../http/openapi.ts";
import { IdParams, PageQuery } from "../../http/shapes.ts";
import { DEFAULT_LIMIT } from "../../page.ts";
import { InvitationAnswer, InvitationBody, InvitationPage } from "./schema.ts";
import { createInvitation, deleteInvitation, listInvitationPage } from "./service.ts";

const tag = "Invitations";
const PATH = "/api/v1/invitations";
const example = {
  id: "019b76da-a800-7000-8000-000000000000",
  email: "ada@example.org",
  roles: ["user"],
  created_at: "2026-01-01T00:00:00.000Z",
  expires_at: "2026-01-04T00:00:00.000Z",
};

export const invitationRoutes = (deps: Deps) =>
  new Elysia({ name: "invitations", prefix: PATH })
    .use(access(deps))
    .get("", ({ query }) => listInvitationPage(deps, { limit: DEFAULT_LIMIT, ...query }), {
      access: { permission: "users:read" },
      query: PageQuery,
      detail: describe({
        tag,
        summary: "List the invitations",
        description: "Permission users:read.",
        bearer: true,
        answers: { 200: InvitationPage },
        errors: ["FORBIDDEN", "VALIDATION_FAILED"],
        example: { data: [example], next_cursor: null },
      }),
    })
    .post(
      "",
      async ({ body, principal, request, set }) => {
        const invitation = await createInvitation(deps, { roles: ["user"], ...body }, actorOf(principal, request));
        set.status = 201;
        set.headers.location = `${PATH}/${invitation.id}`;
        return invitation;
      },
      {
        access: { permission: "users:write", stepUp: true },
        body: InvitationBody,
        detail: describe({
          tag,
          summary: "Invite somebody to register",
          description:
            "Permission users:write. Good for 72 hours and one registration, with roles that you could give yourself. It is mailed to the address, at most 3 in 15 minutes and 10 a day; whoever registers with the token counts as the owner of the address.",
          bearer: true,
          takesBody: true,
          answers: { 201: InvitationAnswer },
          errors: ["FORBIDDEN", "AUTH_STEP_UP_REQUIRED"],
          example: { ...example, token: "AuM0…" },
        }),
      },
    )
    .delete(
      "/:id",
      async ({ params, principal, request, set }) => {
        await deleteInvitation(deps, params.id, actorOf(principal, request));
        set.status = 204;
      },
      {
        access: { permission: "users:write" },
        params: IdParams,
        detail: describe({
          tag,
          summary: "Take an invitation back",
          description: "Permission users:write.",
          bearer: true,
          answers: { 204: "The invitation is gone" },
          errors: ["FORBIDDEN", "NOT_FOUND"],
        }),
      },
    );
