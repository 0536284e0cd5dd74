import { type Context, Elysia } from "elysia";
import { addressKey } from "../../address-key.ts";
import type { Deps } from "../../deps.ts";
import { matchesEtag } from "../../etag.ts";
import { callerOf } from "../../http/context.ts";
import { describe } from "../../http/openapi.ts";
import { RevocationEvents, RevocationsAnswer } from "./schema.ts";

const tag = "Revocations";
const MAX_AGE_SECONDS = 1;
/** An idle connection counts as such after this long (seconds) once nothing more will be sent on it. */
const DROP_AFTER_SECONDS = 1;

/** Session ids tell nothing of anybody, so any page may read them. */
function openToAll({ headers }: Context["set"]): void {
  headers["access-control-allow-origin"] ??= "*";
  headers["cross-origin-resource-policy"] = "cross-origin";
}

export const revocationRoutes = (deps: Deps) =>
  new Elysia({ name: "revocations", prefix: "/api/v1/revocations" })
    .get(
      "",
      async ({ request, set }) => {
        const { jwt, etag } = await deps.revocations.snapshot();
        openToAll(set);
        set.headers["cache-control"] = `public, max-age=${MAX_AGE_SECONDS}`;
        set.headers.etag = etag;
        if (matchesEtag(request.headers.get("if-none-match"), etag)) {
          set.status = 304;
          return;
        }
        return { revocations: jwt };
      },
      {
        detail: describe({
          tag,
          summary: "The sessions that have ended, signed",
          description:
            "For services that verify access tokens by themselves. The list may be two seconds old, and its iat older where it has not changed.",
          answers: { 200: RevocationsAnswer, 304: "Not changed since the ETag given" },
        }),
      },
    )
    .get(
      "/stream",
      async ({ request, server, set }) => {
        const drop = () => server?.timeout(request, DROP_AFTER_SECONDS);
        const isHead = request.method === "HEAD";
        const body = isHead
          ? null
          : await deps.revocations.open({ address: addressKey(callerOf(request).ip), signal: request.signal, drop });
        openToAll(set);
        // Proxies like nginx would keep events back until a buffer is full.
        set.headers["x-accel-buffering"] = "no";
        return new Response(body, { headers: { "content-type": "text/event-stream" } });
      },
      {
        detail: describe({
          tag,
          summary: "The sessions that have ended, and those that end, as they do",
          mediaType: "text/event-stream",
          answers: { 200: RevocationEvents },
        }),
      },
    );
