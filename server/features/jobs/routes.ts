import { Elysia } from "elysia";
import type { Deps } from "../../deps.ts";
import { access, actorOf } from "../../http/access.ts";
import { describe } from "../../http/openapi.ts";
import { IdParams } from "../../http/shapes.ts";
import { DEFAULT_LIMIT } from "../../page.ts";
import { JobAnswer, JobPage, JobQuery } from "./schema.ts";
import { listJobPage, retryJob } from "./service.ts";

const tag = "Background jobs";

export const jobRoutes = (deps: Deps) =>
  new Elysia({ name: "jobs", prefix: "/api/v1/jobs" })
    .use(access(deps))
    .get("", ({ query }) => listJobPage(deps, { limit: DEFAULT_LIMIT, ...query }), {
      access: { permission: "jobs:read" },
      query: JobQuery,
      detail: describe({
        tag,
        summary: "List background jobs",
        description:
          "Permission jobs:read. What a job carries, such as the text or the link of a mail, is never shown.",
        bearer: true,
        answers: { 200: JobPage },
        errors: ["FORBIDDEN", "VALIDATION_FAILED"],
      }),
    })
    .post("/:id/retry", ({ params, principal, request }) => retryJob(deps, params.id, actorOf(principal, request)), {
      access: { permission: "jobs:retry" },
      params: IdParams,
      detail: describe({
        tag,
        summary: "Try a job again now",
        description:
          'Permission jobs:retry. A dead job gets as many tries as a new one; one that waits for its next try is due at once. CONFLICT says in details.reason why it cannot be: "running", "done", or "secrets_erased" where the link or code that it was about is gone.',
        bearer: true,
        answers: { 200: JobAnswer },
        errors: ["FORBIDDEN", "NOT_FOUND", "CONFLICT"],
      }),
    });
