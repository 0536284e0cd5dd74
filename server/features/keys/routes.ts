import { Elysia, t } from "elysia";
import type { Deps } from "../../deps.ts";
import { matchesEtag } from "../../etag.ts";
import { describe } from "../../http/openapi.ts";
import { JWKS_MAX_AGE_SECONDS } from "./service.ts";

const KeySet = t.Object(
  {
    keys: t.Array(
      t.Object(
        { kty: t.String(), kid: t.String(), alg: t.String(), use: t.Literal("sig") },
        { additionalProperties: true },
      ),
    ),
  },
  { description: "RFC 7517 key set" },
);

export const keyRoutes = (deps: Deps) =>
  new Elysia({ name: "keys" }).get(
    "/.well-known/jwks.json",
    ({ request, set }) => {
      const { body, etag } = deps.keys.published();
      set.headers["cache-control"] = `public, max-age=${JWKS_MAX_AGE_SECONDS}`;
      set.headers["access-control-allow-origin"] ??= "*";
      set.headers["cross-origin-resource-policy"] = "cross-origin";
      set.headers.etag = etag;
      if (matchesEtag(request.headers.get("if-none-match"), etag)) {
        set.status = 304;
        return;
      }
      set.headers["content-type"] = "application/json";
      return body;
    },
    {
      detail: describe({
        tag: "Keys",
        summary: "The public keys that access tokens are signed with",
        limits: [],
        answers: { 200: KeySet, 304: "Not changed since the ETag given" },
      }),
    },
  );
