import { Elysia } from "elysia";

/** An address on this machine alone. */
export interface BareApp {
  readonly port: number;
  stop(): Promise<void>;
}

/**
 * The framework with nothing around it: a GET, and a POST that parses a form. What primer itself answers is measured
 * against this by `primer bench`, so it is set up as primer's own application is.
 */
export function openBareApp(): BareApp {
  const app = new Elysia({ normalize: false, aot: true, nativeStaticResponse: false, strictPath: true })
    .get("/get", () => ({ active: true }))
    .post("/form", ({ body }) => ({ active: typeof body === "object" && body !== null && "token" in body }), {
      parse: "urlencoded",
    })
    .listen({ hostname: "127.0.0.1", port: 0 });
  return {
    port: app.server?.port ?? 0,
    stop: async () => {
      await app.server?.stop(true);
    },
  };
}
