import { startServer } from "../../../server/start.ts";
import { openTestApp, type TestAnswer, type TestApp, textOf } from "../../support/app.ts";
import { freePort } from "../../support/services.ts";
import { assertContract, type OpenApiDocument, servedDocument } from "./contract.ts";

/** A test application every answer of which is held against the contract before a test sees it. */
export interface HttpApp extends TestApp {
  readonly document: OpenApiDocument;
  /** Where it listens; only {@link openListeningApp} makes one that does. */
  readonly url: string;
}

export async function openHttpApp(variables: Record<string, string> = {}): Promise<HttpApp> {
  const app = await openTestApp(variables);
  const document = await servedDocument(app);
  return { ...app, document, url: "", ...held(app, document) };
}

/** The same behind a real listener on 127.0.0.1: requests go over TCP, so they have a peer address. */
export async function openListeningApp(variables: Record<string, string> = {}): Promise<HttpApp> {
  const app = await openTestApp({ PRIMER_SERVER__PORT: String(await freePort()), ...variables });
  const document = await servedDocument(app);
  const server = startServer(app.deps);
  const overTcp = { ...app, request: requestTo(server.url) };
  return {
    ...overTcp,
    document,
    url: server.url,
    ...held(overTcp, document),
    async close() {
      await server.stop();
      await app.close();
    },
  };
}

function held(app: TestApp, document: OpenApiDocument): Pick<TestApp, "request" | "login"> {
  const request: TestApp["request"] = async (method, path, options) => {
    const answer = await app.request(method, path, options);
    assertContract(document, method, path, answer);
    return answer;
  };
  return {
    request,
    async login(username, password) {
      const answer = await request("POST", "/api/v1/auth/login", {
        body: { username, password: password ?? "correct horse battery staple" },
      });
      if (answer.status !== 200) throw new Error(`Login answered ${answer.status}: ${answer.text}`);
      return answer.body;
    },
  };
}

function requestTo(url: string): TestApp["request"] {
  return async (method, path, options = {}) => {
    const { body, headers, token } = options;
    const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(token ? { authorization: `Bearer ${token}` } : {}),
        ...headers,
      },
      ...(text === undefined ? {} : { body: text }),
      redirect: "manual",
    });
    return readAnswer(response);
  };
}

/** What {@link TestApp.request} answers, of a response of any origin. */
export async function readAnswer(response: Response): Promise<TestAnswer> {
  const text = await textOf(response);
  const isJson = text !== "" && (response.headers.get("content-type")?.includes("json") ?? false);
  return { status: response.status, headers: response.headers, text, body: isJson ? JSON.parse(text) : undefined };
}
