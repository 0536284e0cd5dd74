import { type Context, Elysia } from "elysia";
import styleFile from "swagger-ui-dist/swagger-ui.css" with { type: "file" };
import bundleFile from "swagger-ui-dist/swagger-ui-bundle.js" with { type: "file" };
import type { Deps } from "../../deps.ts";
import { AppError } from "../../errors.ts";
import { DOCS_CONTENT_SECURITY_POLICY, DOCS_PAGE, DOCS_START_SCRIPT, DOCS_STYLE } from "./page.ts";

interface DocsFile {
  readonly path: string;
  readonly type: string;
  content(): string | Promise<string>;
}

const FILES: readonly DocsFile[] = [
  { path: "", type: "text/html", content: () => DOCS_PAGE },
  { path: "/start.js", type: "text/javascript", content: () => DOCS_START_SCRIPT },
  { path: "/page.css", type: "text/css", content: () => DOCS_STYLE },
  { path: "/swagger-ui.css", type: "text/css", content: () => Bun.file(styleFile).text() },
  { path: "/swagger-ui-bundle.js", type: "text/javascript", content: () => Bun.file(bundleFile).text() },
];

/** @param document makes the OpenAPI document; asked for at the first request for it only */
export function docsRoutes(deps: Deps, document: () => Promise<Record<string, unknown>>) {
  let json: Promise<string> | undefined;
  const describeOnce = () => {
    json ??= document().then((content) => JSON.stringify(content));
    return json;
  };
  const files = [...FILES, { path: "/json", type: "application/json", content: describeOnce }];
  const serve = (set: Context["set"], { type, content }: DocsFile) => {
    if (!deps.settings.docs.enabled) throw new AppError("NOT_FOUND");
    set.headers["content-security-policy"] = DOCS_CONTENT_SECURITY_POLICY;
    set.headers["content-type"] = `${type}; charset=utf-8`;
    return content();
  };
  const routes = new Elysia({ name: "docs", prefix: "/docs" });
  for (const file of files) routes.get(file.path, ({ set }) => serve(set, file), { detail: { hide: true } });
  return routes;
}
