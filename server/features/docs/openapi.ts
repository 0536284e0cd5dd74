import { swagger } from "@elysiajs/swagger";
import { type AnyElysia, Elysia } from "elysia";
import { ErrorSchema } from "../../http/openapi.ts";

const SPEC_PATH = "/openapi/json";

interface Operation {
  requestBody?: { content: Record<string, unknown> };
}

/** The OpenAPI 3 document of the routes of an app: every route, every status it can answer, every schema. */
export async function openapiDocument(api: AnyElysia, version: string): Promise<Record<string, unknown>> {
  const generator = new Elysia().use(api).use(
    swagger({
      path: "/openapi",
      specPath: SPEC_PATH,
      excludeStaticFile: false,
      exclude: ["/openapi", SPEC_PATH],
      documentation: {
        info: {
          title: "primer",
          version,
          description: "Self-hosted authentication: log in, refresh, log out, verify.",
          license: { name: "Apache-2.0" },
        },
        components: {
          schemas: { Error: ErrorSchema as never },
          securitySchemes: { bearer: { type: "http", scheme: "bearer", bearerFormat: "JWT" } },
        },
      },
    }),
  );
  const response = await generator.handle(new Request(`http://localhost${SPEC_PATH}`));
  const document = (await response.json()) as { paths: Record<string, Record<string, Operation>> };
  for (const operations of Object.values(document.paths)) Object.values(operations).forEach(onlyJson);
  return document;
}

/** The generator offers every body as form and text too; we take JSON alone. */
function onlyJson(operation: Operation): void {
  const json = operation.requestBody?.content["application/json"];
  if (operation.requestBody && json) operation.requestBody.content = { "application/json": json };
}
