import { type Context, Elysia } from "elysia";
import styleFile from "swagger-ui-dist/swagger-ui.css" with { type: "file" };
import bundleFile from "swagger-ui-dist/swagger-ui-bundle.js" with { type: "file" };
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { DOCS_CONTENT_SECURITY_POLICY, DOCS_PAGE, DOCS_START_SCRIPT } from "./page.ts";

/** @param document makes the OpenAPI document; asked for at the first request for it only */
export function docsRoutes(deps: Deps, document: () => Promise<Record<string, unknown>>) {
  let json: Promise<string> | undefined;
  const serve = (set: Context["set"], type: string) => {
    if (!deps.settings.docs.enabled) throw new AppError("NOT_FOUND");
    set.headers["content-security-policy"] = DOCS_CONTENT_SECURITY_POLICY;
    set.headers["content-type"] = `${type}; charset=utf-8`;
  };
  const hidden = { detail: { hide: true } };
  return new Elysia({ name: "docs", prefix: "/docs" })
    .get(
      "",
      ({ set }) => {
        serve(set, "text/html");
        return DOCS_PAGE;
      },
      hidden,
    )
    .get(
      "/start.js",
      ({ set }) => {
        serve(set, "text/javascript");
        return DOCS_START_SCRIPT;
      },
      hidden,
    )
    .get(
      "/swagger-ui-bundle.js",
      ({ set }) => {
        serve(set, "text/javascript");
        return Bun.file(bundleFile).text();
      },
      hidden,
    )
    .get(
      "/swagger-ui.css",
      ({ set }) => {
        serve(set, "text/css");
        return Bun.file(styleFile).text();
      },
      hidden,
    )
    .get(
      "/json",
      ({ set }) => {
        serve(set, "application/json");
        json ??= document().then((content) => JSON.stringify(content));
        return json;
      },
      hidden,
    );
}
