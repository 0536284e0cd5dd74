import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { SignJWT } from "jose";
import { createLegacyUsers } from "../../../server/features/auth/service.ts";
import { changeRole, createRole } from "../../../server/features/roles/service.ts";
import {
  changeUser,
  deactivateUser,
  eraseUser,
  requirePasswordChange,
  setPassword,
  setRoles,
} from "../../../server/features/users/service.ts";
import { PASSWORD, type TestApp, type TestNode } from "../../support/app.ts";
import { deafFeed } from "../../support/frozen-feed.ts";
import { LEGACY_SECRET, LEGACY_SETTINGS } from "../../support/legacy.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";
import { stepsOf } from "../support/observe.ts";
import { untilAnswered, WITHIN_MS } from "../support/until-answered.ts";

const OPERATOR = { actor: { kind: "operator" } } as const;
const INVALID = "AUTH_TOKEN_INVALID";
const REVOKED = "AUTH_TOKEN_REVOKED";
const READER = "invoice-readers";

type Node = Pick<TestApp, "request">;
type User = Awaited<ReturnType<TestApp["createUser"]>>;

let app: HttpApp;
let other: TestNode;
let made = 0;
beforeAll(async () => {
  app = await openHttpApp(LEGACY_SETTINGS);
  other = await app.otherNode();
  await createRole(app.deps, READER, { description: "", permissions: ["invoices:read"], includes: [] }, OPERATOR);
});
afterAll(() => app.close());

const newUser = (roles = ["user"]) => app.createUser({ username: `user-${++made}`, roles });

/** A token for whoever is named, made a while ago. */
function sign(name: string): Promise<string> {
  const now = Math.floor(app.clock.now().getTime() / 1000);
  const claims = {
    iss: LEGACY_SETTINGS.PRIMER_TOKENS__LEGACY_ISSUER,
    aud: LEGACY_SETTINGS.PRIMER_TOKENS__LEGACY_AUDIENCE,
  };
  return new SignJWT({ ...claims, sub: name, iat: now - 60, exp: now + 86_400 })
    .setProtectedHeader({ alg: "HS256", typ: "JWT" })
    .sign(new TextEncoder().encode(LEGACY_SECRET));
}

/** Whom a token is taken for, or why for nobody. */
async function askedOn(on: Node, token: string, query = ""): Promise<string> {
  const { body } = await on.request("GET", `/api/v1/auth/verify${query}`, { token });
  return body.error?.code ?? body.sub;
}

/** Everything that ends a token by which the user is named, and what is answered then. */
interface Way {
  readonly name: string;
  readonly by?: "username" | "email" | "id";
  readonly end: (user: User) => Promise<unknown>;
  readonly expected: string;
}

const WAYS: readonly Way[] = [
  {
    name: "the account disabled",
    end: ({ id }) => changeUser(app.deps, id, { status: "disabled" }, OPERATOR),
    expected: REVOKED,
  },
  { name: "the account deactivated", end: ({ id }) => deactivateUser(app.deps, id, OPERATOR), expected: REVOKED },
  {
    name: "a new password",
    end: ({ id }) => setPassword(app.deps, id, "a new horse battery staple", OPERATOR),
    expected: REVOKED,
  },
  {
    name: "a password that has to be changed",
    end: ({ id }) => requirePasswordChange(app.deps, id, OPERATOR),
    expected: REVOKED,
  },
  { name: "the account erased", end: ({ id }) => eraseUser(app.deps, id, OPERATOR), expected: INVALID },
  {
    name: "the account erased, named by id",
    by: "id",
    end: ({ id }) => eraseUser(app.deps, id, OPERATOR),
    expected: REVOKED,
  },
  {
    name: "its row deleted",
    end: ({ id }) => app.deps.db.change((tx) => tx.execute(sql`DELETE FROM users WHERE id = ${id}`)),
    expected: INVALID,
  },
  {
    name: "another user name",
    end: ({ id, username }) => changeUser(app.deps, id, { username: `${username}-now` }, OPERATOR),
    expected: INVALID,
  },
  {
    name: "another address",
    by: "email",
    end: ({ id, username }) => changeUser(app.deps, id, { email: `${username}@now.example.test` }, OPERATOR),
    expected: INVALID,
  },
];

describe("what ends a token of the service before", () => {
  // Remembered or not: the node that changes something refuses the token at once, every other one within a second.
  for (const { name, by = "username", end, expected } of WAYS) {
    test(`${name}: at once here, within ${WITHIN_MS} ms on the other node`, async () => {
      const user = await newUser();
      const token = await sign({ ...user, email: `${user.username}@example.test` }[by]);
      expect([await askedOn(app, token), await askedOn(other, token)]).toEqual([user.id, user.id]);
      await end(user);
      expect(await askedOn(app, token)).toBe(expected);
      expect(await untilAnswered(expected, () => askedOn(other, token))).toBeLessThan(WITHIN_MS);
    });
  }

  test("the first password of an account that had none", async () => {
    const { id, username } = await newUser();
    await app.deps.db.change((tx) => tx.execute(sql`DELETE FROM credentials WHERE user_id = ${id}`));
    const token = await sign(username);
    expect([await askedOn(app, token), await askedOn(other, token)]).toEqual([id, id]);
    app.clock.advance(1000);
    await setPassword(app.deps, id, `${PASSWORD} 2`, OPERATOR);
    expect(await askedOn(app, token)).toBe(REVOKED);
    expect(await untilAnswered(REVOKED, () => askedOn(other, token))).toBeLessThan(WITHIN_MS);
  });

  test("a restore", async () => {
    const { id, username } = await newUser();
    const token = await sign(username);
    expect([await askedOn(app, token), await askedOn(other, token)]).toEqual([id, id]);
    const countFrom = (moment: string | null) =>
      app.deps.db.change((tx) => tx.execute(sql`UPDATE installation SET not_before = ${moment}`));
    await countFrom(app.clock.now().toISOString());
    expect(await askedOn(app, token)).toBe(REVOKED);
    expect(await untilAnswered(REVOKED, () => askedOn(other, token))).toBeLessThan(WITHIN_MS);
    await countFrom(null);
  });
});

// A name is whoever has it now, on every node: never whoever had it before.
test("a name that somebody else has taken is theirs", async () => {
  const [first, second] = [await newUser(), await newUser()];
  const token = await sign(first.username);
  expect([await askedOn(app, token), await askedOn(other, token)]).toEqual([first.id, first.id]);
  await changeUser(app.deps, first.id, { username: `${first.username}-before` }, OPERATOR);
  await changeUser(app.deps, second.id, { username: first.username }, OPERATOR);
  expect(await askedOn(app, token)).toBe(second.id);
  expect(await untilAnswered(second.id, () => askedOn(other, token))).toBeLessThan(WITHIN_MS);
});

// What a user may do is what their roles give now, and not when the token was first seen.
describe("what the user may do", () => {
  const RIGHTS: Readonly<Record<string, (id: string) => Promise<unknown>>> = {
    "a role taken away": (id) => setRoles(app.deps, id, { roles: ["user"] }, OPERATOR),
    "a role that gives less": () => changeRole(app.deps, READER, { permissions: ["invoices:list"] }, OPERATOR),
  };
  for (const [name, change] of Object.entries(RIGHTS)) {
    test(`${name}: at once here, within ${WITHIN_MS} ms on the other node`, async () => {
      const { id, username } = await newUser([READER]);
      const token = await sign(username);
      const mayOn = (on: Node) => askedOn(on, token, "?permission=invoices:read");
      expect([await mayOn(app), await mayOn(other)]).toEqual([id, id]);
      await change(id);
      expect(await mayOn(app)).toBe("FORBIDDEN");
      expect(await untilAnswered("FORBIDDEN", () => mayOn(other))).toBeLessThan(WITHIN_MS);
      expect(await askedOn(other, token)).toBe(id);
    });
  }

  test("a role on one thing, taken away", async () => {
    const { id, username } = await newUser();
    await setRoles(app.deps, id, { roles: [], grants: [{ role: READER, resource: "shop-7" }] }, OPERATOR);
    await changeRole(app.deps, READER, { permissions: ["invoices:read"] }, OPERATOR);
    const token = await sign(username);
    const mayOn = (on: Node) => askedOn(on, token, "?permission=invoices:read&resource=shop-7");
    expect([await mayOn(app), await untilAnswered(id, () => mayOn(other))]).toEqual([id, expect.any(Number)]);
    await setRoles(app.deps, id, { roles: [], grants: [] }, OPERATOR);
    expect(await mayOn(app)).toBe("FORBIDDEN");
    expect(await untilAnswered("FORBIDDEN", () => mayOn(other))).toBeLessThan(WITHIN_MS);
  });
});

test("a user who is known is not read again; one who is not there is looked for each time", async () => {
  const { username } = await newUser();
  const [known, unknown] = [await sign(username), await sign("nobody-yet")];
  await askedOn(app, known);
  expect(await stepsOf(app.deps, () => askedOn(app, known))).toEqual([]);
  expect(await askedOn(app, unknown)).toBe(INVALID);
  const { id } = await app.createUser({ username: "nobody-yet" });
  expect(await askedOn(app, unknown)).toBe(id);
});

// A new hash of the same password, as a login makes one of an imported hash, is no new password.
test("a hash that is replaced by another of the same password ends nothing", async () => {
  const { id, username } = await newUser();
  const token = await sign(username);
  expect(await askedOn(app, token)).toBe(id);
  await app.deps.db.change((tx) => tx.execute(sql`UPDATE credentials SET secret = secret WHERE user_id = ${id}`));
  expect(await stepsOf(app.deps, () => askedOn(app, token))).toEqual([]);
  expect(await askedOn(app, token)).toBe(id);
});

// Nothing tells a node that it hears nothing: what it remembers counts for a second at most.
test("a node whose feed of changes has frozen believes it for one second at most", async () => {
  const frozen = deafFeed();
  const deaf = await app.otherNode({ legacyUsers: createLegacyUsers(frozen) });
  const { id, username } = await newUser();
  const token = await sign(username);
  expect(await askedOn(deaf, token)).toBe(id);
  await changeUser(app.deps, id, { status: "disabled" }, OPERATOR);
  frozen.moveTo(WITHIN_MS - 1);
  expect(await askedOn(deaf, token)).toBe(id);
  frozen.moveTo(WITHIN_MS);
  expect(await askedOn(deaf, token)).toBe(REVOKED);
});
