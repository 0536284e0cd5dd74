import { Elysia } from "elysia";
import type { Deps } from "../deps.ts";
import { authenticate } from "../features/auth/service.ts";
import { cookieOf } from "./cookies.ts";

/**
 * Lets a route declare who may call it: `access: "user"` asks for a bearer token whose session counts and gives the
 * handler `principal` and `claims`. A route that declares nothing is public.
 */
export const access = (deps: Deps) =>
  new Elysia({ name: "access" }).macro("access", (_who: "user") => ({
    resolve: async ({ request }) =>
      authenticate(deps, {
        authorization: request.headers.get("authorization"),
        fingerprint: cookieOf(deps.settings, request, "fp"),
      }),
  }));
