import { afterAll, beforeAll, expect, test } from "bun:test";
import { openPglite } from "../../db/pglite.ts";
import { createPostgresDatabase, openPostgresAt, TEST_DATABASE } from "../support/database.ts";
import { initHome, login, primer, refresh, scratchFolder, serve } from "./processes.ts";

/** What a later version might add: expand first, contract when nobody needs the old any more. */
const LATER = `ALTER TABLE users ADD COLUMN nickname text NOT NULL DEFAULT '';
  ALTER TABLE sessions ADD COLUMN risk integer;
  CREATE TABLE badges (id uuid PRIMARY KEY, user_id uuid REFERENCES users (id) ON DELETE CASCADE);
  INSERT INTO schema_migrations VALUES ('9999_later', 'hash', now())`;

const scratch = scratchFolder();
let variables: Record<string, string> = {};
let drop = async () => {};
beforeAll(async () => {
  if (TEST_DATABASE === "pglite") return;
  const made = await createPostgresDatabase();
  variables = { DATABASE_URL: made.url };
  drop = made.drop;
});
afterAll(async () => {
  await drop();
  scratch.remove();
});

// An upgrade migrates first: the version before goes on serving on the schema of the next, and may be gone back to.
test("this version serves on the schema of the next one, and does not touch it", async () => {
  await initHome(scratch.path, variables);
  const db =
    TEST_DATABASE === "pglite" ? await openPglite(scratch.path) : await openPostgresAt(variables.DATABASE_URL ?? "");
  await db.query(LATER);
  await db.close();
  const server = await serve(scratch.path, variables);
  try {
    const answer = await login(server.url);
    expect(answer.status).toBe(200);
    expect((await refresh(server.url, answer.body.refresh_token)).status).toBe(200);
    for (const words of [["migrate"], ["migrate", "--check"]]) {
      expect((await primer(scratch.path, words, variables).finished).exitCode).toBe(1);
    }
  } finally {
    server.signal("SIGTERM");
    await server.finished;
  }
});
