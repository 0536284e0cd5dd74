import { swagger } from "@elysiajs/swagger";
import { type AnyElysia, Elysia } from "elysia";
import { ErrorSchema, OauthErrorSchema } from "../../http/openapi.ts";
import { asOpenapiSchema } from "./openapi-schema.ts";

const SPEC_PATH = "/openapi/json";

type Schema = Readonly<Record<string, unknown>>;
type Content = Record<string, { schema?: Schema }>;

interface Operation {
  operationId: string;
  parameters?: { schema?: Schema }[];
  requestBody?: { content: Content; required: boolean };
  responses?: Record<string, { content?: Content }>;
  "x-body-optional"?: boolean;
}

interface Document {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
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
          schemas: { Error: ErrorSchema as never, OAuthError: OauthErrorSchema as never },
          securitySchemes: {
            bearer: { type: "http", scheme: "bearer", bearerFormat: "JWT" },
            cookie: { type: "apiKey", in: "cookie", name: "__Host-primer_refresh" },
            basic: { type: "http", scheme: "basic", description: "client_id and client_secret of a service client" },
          },
        },
      },
    }),
  );
  const response = await generator.handle(new Request(`http://localhost${SPEC_PATH}`));
  const document = (await response.json()) as Document;
  for (const operations of Object.values(document.paths)) Object.values(operations).forEach(tidy);
  const { schemas } = document.components;
  for (const [name, schema] of Object.entries(schemas)) schemas[name] = asOpenapiSchema(schema);
  return { ...document };
}

/** Turns what the generator makes of a route into what OpenAPI 3.0 and generators of clients ask for. */
function tidy(operation: Operation): void {
  onlyJson(operation);
  if (operation.requestBody) operation.requestBody.required = !operation["x-body-optional"];
  delete operation["x-body-optional"];
  operation.operationId = operation.operationId.replace(/[^a-z0-9]+(.)/gi, (_, next: string) => next.toUpperCase());
  const contents = [operation.requestBody?.content, ...Object.values(operation.responses ?? {}).map((r) => r.content)];
  const places = [...(operation.parameters ?? []), ...contents.flatMap((content) => Object.values(content ?? {}))];
  for (const place of places) if (place.schema) place.schema = asOpenapiSchema(place.schema);
}

/** The generator offers every body that it sees as form and text too; we take JSON alone there. */
function onlyJson(operation: Operation): void {
  const json = operation.requestBody?.content["application/json"];
  if (operation.requestBody && json) operation.requestBody.content = { "application/json": json };
}
