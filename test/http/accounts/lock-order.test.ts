import { expect, test } from "bun:test";
import { issueChangeToken } from "../../../server/features/accounts/confirm-email.ts";
import { issueSingleUseToken } from "../../../server/features/tokens/service.ts";
import { requirePasswordChange } from "../../../server/features/users/service.ts";
import { TEST_DATABASE } from "../../support/database.ts";
import { openHttpApp } from "../support/http-app.ts";

const ON_SERVER = TEST_DATABASE === "postgres";
if (!ON_SERVER) process.stderr.write("not on the embedded database, which does one thing at a time: lock orders\n");
const ROUNDS = 25;
const AUTH = "/api/v1/auth";
const OPERATOR = { actor: { kind: "operator" } } as const;
const email = "new@example.org";

// Whoever uses a link and whoever ends it at the same moment take their locks in one order: neither waits for the other
// for ever, which the server would find out after a second.
test.if(ON_SERVER)("links that are used while they are ended make no deadlock", async () => {
  const app = await openHttpApp({ PRIMER_PASSWORD__FAILURE_FLOOR: "0ms", PRIMER_RATE_LIMITS__MAIL_ADDRESS: "off" });
  try {
    const { id } = await app.createUser({ username: "ada" });
    const node = await app.otherNode(); // its connections tell what they met when they are closed
    const use = (path: string, body: unknown) => node.request("POST", `${AUTH}/${path}`, { body });
    const issue = (purpose: "end_session" | "change_password") =>
      node.deps.db.transaction((tx) =>
        issueSingleUseToken(tx, node.deps, { purpose, userId: id, subject: id, ttlMs: 60_000 }),
      );
    const statuses: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const link = await node.deps.db.transaction((tx) => issueChangeToken(tx, node.deps, id, email));
      const end = await issue("end_session");
      const reset = await issue("change_password");
      const answers = await Promise.all([
        use("verify-email", { token: link }),
        requirePasswordChange(node.deps, id, OPERATOR),
        use("end-session", { token: end }),
        use("reset-password", { token: reset, new_password: `correct horse battery staple ${round}` }),
        requirePasswordChange(node.deps, id, OPERATOR),
        use("forgot-password", { email: "ada@example.test" }),
      ]);
      statuses.push(...answers.flatMap((answer) => (answer ? [answer.status] : [])));
    }
    expect(statuses.filter((status) => status >= 500)).toEqual([]);
    await node.deps.db.close();
    const [met] = await app.db.query(
      "SELECT deadlocks::int AS deadlocks FROM pg_stat_database WHERE datname = current_database()",
    );
    expect(met).toEqual({ deadlocks: 0 });
  } finally {
    await app.close();
  }
});
