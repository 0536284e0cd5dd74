import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { openTestApp, PASSWORD, type TestApp } from "../../support/app.ts";

let app: TestApp;
beforeAll(async () => {
  app = await openTestApp();
  await app.createUser({ username: "ada" });
});
afterAll(() => app.close());

const login = (body: unknown) => app.request("POST", "/api/v1/auth/login", { body });

describe("POST /auth/login", () => {
  // A login answers both tokens, and what they are good for.
  test("200 by user name", async () => {
    const answer = await login({ username: "ada", password: PASSWORD });
    expect(answer.status).toBe(200);
    expect(answer.body).toMatchObject({ token_type: "bearer", expires_in: 900, refresh_expires_in: 86_400 });
  });
});
