import { Elysia, t } from "elysia";
import type { Deps } from "../../deps.ts";
import { describe } from "../../http/openapi.ts";
import { assertReady } from "./service.ts";

const tag = "Health";
const Health = t.Object(
  { status: t.Literal("healthy"), version: t.String(), timestamp: t.String({ format: "date-time" }) },
  { description: "The process is there" },
);
const Live = t.Object({ status: t.Literal("alive") }, { description: "The process is there" });
const Ready = t.Object({ status: t.Literal("ready") }, { description: "Ready for requests" });

export const healthRoutes = (deps: Deps) =>
  new Elysia({ name: "health" })
    .get(
      "/api/v1/health",
      () => ({ status: "healthy", version: deps.version, timestamp: deps.clock.now().toISOString() }),
      { detail: describe({ tag, limits: [], summary: "Is the process there", answers: { 200: Health } }) },
    )
    .get("/livez", () => ({ status: "alive" }), {
      detail: describe({
        tag,
        limits: [],
        summary: "Liveness probe; asks nothing of the database",
        answers: { 200: Live },
      }),
    })
    .get(
      "/readyz",
      async () => {
        await assertReady(deps);
        return { status: "ready" };
      },
      { detail: describe({ tag, limits: [], summary: "Readiness probe", answers: { 200: Ready } }) },
    );
