import { Elysia, t } from "elysia";
import type { Deps } from "../../deps.ts";
import { access, actorOf } from "../../http/access.ts";
import { keyedRequest } from "../../http/idempotency.ts";
import { describe } from "../../http/openapi.ts";
import { IdParams, PageQuery } from "../../http/shapes.ts";
import { DEFAULT_LIMIT } from "../../page.ts";
import { createOnce } from "../idempotency/service.ts";
import { ClientAnswer, ClientBody, ClientPage, RotateBody } from "./schema.ts";
import { createClient, DEFAULT_OVERLAP_MS, deleteClient, listClientPage, rotateClientSecret } from "./service.ts";

const tag = "Service clients";
const PATH = "/api/v1/clients";
const READ = { permission: "clients:read" };
const WRITE = { permission: "clients:write" };

export const clientRoutes = (deps: Deps) =>
  new Elysia({ name: "clients", prefix: PATH })
    .use(access(deps))
    .get("", ({ query }) => listClientPage(deps, { limit: DEFAULT_LIMIT, ...query }), {
      access: READ,
      query: PageQuery,
      detail: describe({
        tag,
        summary: "List the service clients",
        description: "Permission clients:read.",
        bearer: true,
        answers: { 200: ClientPage },
        errors: ["FORBIDDEN", "VALIDATION_FAILED"],
      }),
    })
    .post(
      "",
      async ({ body, principal, request, set }) => {
        const by = actorOf(principal, request);
        const client = await createOnce(deps, keyedRequest(request, principal, body), (once) =>
          createClient(deps, body, by, once),
        );
        set.status = 201;
        set.headers.location = `${PATH}/${client.id}`;
        return client;
      },
      {
        access: WRITE,
        body: ClientBody,
        detail: describe({
          tag,
          summary: "Register a service that may introspect and revoke tokens",
          description: "Permission clients:write. The answer is the only time that the secret is shown.",
          bearer: true,
          takesBody: true,
          takesKey: true,
          answers: { 201: ClientAnswer },
          errors: ["FORBIDDEN", "CONFLICT"],
        }),
      },
    )
    .delete(
      "/:id",
      async ({ params, principal, request, set }) => {
        await deleteClient(deps, params.id, actorOf(principal, request));
        set.status = 204;
      },
      {
        access: WRITE,
        params: IdParams,
        detail: describe({
          tag,
          summary: "Delete a service client",
          description: "Permission clients:write. Its secrets are dead at once.",
          bearer: true,
          answers: { 204: "The client is gone" },
          errors: ["FORBIDDEN", "NOT_FOUND"],
        }),
      },
    )
    .post(
      "/:id/rotate-secret",
      ({ body, params, principal, request }) => {
        const seconds = body?.overlap_seconds ?? DEFAULT_OVERLAP_MS / 1000;
        return rotateClientSecret(deps, params.id, seconds * 1000, actorOf(principal, request));
      },
      {
        access: WRITE,
        params: IdParams,
        body: t.Optional(RotateBody),
        detail: describe({
          tag,
          summary: "Give a service client a new secret",
          description:
            "Permission clients:write. The secret in use goes on working for a time, so that the service can be told the new one; never more than two work.",
          bearer: true,
          takesBody: "optional",
          answers: { 200: ClientAnswer },
          errors: ["FORBIDDEN", "NOT_FOUND"],
        }),
      },
    );
