import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { EXPORTS, type ProductExport } from "../../support/moving/exports.ts";
import { importInto } from "../../support/moving/import-into.ts";
import { type HttpApp, openHttpApp } from "../support/http-app.ts";

const AT_THE_FLOOR = /^\$argon2id\$v=19\$m=19456,t=2,p=1\$/;

let app: HttpApp;
beforeAll(async () => {
  app = await openHttpApp();
  const now = app.clock.now().toISOString();
  await app.db.query("INSERT INTO roles (name, created_at, updated_at) VALUES ('editor', $1, $1)", [now]);
});
afterAll(() => app.close());

interface Row {
  readonly status: string;
  readonly email_verified: boolean;
  readonly created_at: Date | string;
  readonly password_change_required: boolean;
  readonly secret: string | null;
  readonly pepper_id: string | null;
  readonly roles: string[];
}

async function rowOf(username: string): Promise<Row> {
  const [row] = await app.db.query<{ [Name in keyof Row]: Row[Name] }>(
    `SELECT status, email_verified_at IS NOT NULL AS email_verified, u.created_at, password_change_required, secret, pepper_id,
       (SELECT coalesce(json_agg(role ORDER BY role), '[]') FROM user_roles WHERE user_id = u.id) AS roles
     FROM users u LEFT JOIN credentials c ON c.user_id = u.id WHERE username = $1`,
    [username],
  );
  if (!row) throw new Error(`There is no ${username}`);
  return row;
}

const tryLogin = async (username: string, password: string) =>
  (await app.request("POST", "/api/v1/auth/login", { body: { username, password } })).status;

async function moveIn({ format, path, sourceOptions }: ProductExport) {
  await app.db.query("DELETE FROM users WHERE username <> 'admin'");
  const roles = ["csv", "ndjson"].includes(format) ? {} : { roleMap: { editors: "editor" } };
  return importInto(app.deps, format, path, { ...roles, ...(sourceOptions ? { sourceOptions } : {}) });
}

describe.each(EXPORTS.map((product) => [`${product.format}: ${product.source.slice(0, 60)}`, product] as const))(
  "%s",
  (_name, product) => {
    test("everybody comes in as they were there", async () => {
      const { tally } = await moveIn(product);
      expect(tally).toMatchObject(product.report);
      for (const user of product.users) {
        const row = await rowOf(user.username);
        const { secret, created_at, ...rest } = row;
        expect({ ...rest, hasPassword: secret !== null }).toMatchObject({
          status: user.status,
          hasPassword: user.password !== undefined,
          pepper_id: null,
          password_change_required: user.passwordChangeRequired ?? false,
          ...(user.roles === undefined ? {} : { roles: [...user.roles] }),
          ...(user.email_verified === undefined ? {} : { email_verified: user.email_verified }),
        });
        if (user.created) expect(new Date(created_at).toISOString()).toBe(user.created);
      }
    });

    // Who moves in logs in with the password they had, and from then on has a hash of primer's own, under its pepper; a
    // wrong password is a wrong password and leaves the hash.
    test("their passwords work, wrong ones do not, and the first right one is hashed anew", async () => {
      for (const { username, password, status } of product.users) {
        const before = await rowOf(username);
        expect(await tryLogin(username, `${password ?? ""}!`)).toBe(401);
        expect((await rowOf(username)).secret).toBe(before.secret);
        if (password === undefined) continue;
        const answer = await tryLogin(username, password);
        if (status === "disabled") {
          expect(answer).toBe(403);
          expect((await rowOf(username)).secret).toBe(before.secret);
        } else if (!before.password_change_required) {
          expect(answer).toBe(200);
          const after = await rowOf(username);
          expect(after.secret).toMatch(AT_THE_FLOOR);
          expect(after.pepper_id).toBe(app.deps.secrets.pepper[0].id);
          expect(await tryLogin(username, password)).toBe(200);
        }
      }
    });

    test("a second run leaves everybody alone", async () => {
      const before = await app.db.query("SELECT * FROM users ORDER BY id");
      const { format, path, sourceOptions } = product;
      const { tally } = await importInto(app.deps, format, path, sourceOptions ? { sourceOptions } : {});
      expect(tally).toMatchObject({ imported: 0, existing: product.users.length });
      expect(await app.db.query("SELECT * FROM users ORDER BY id")).toEqual(before);
    });
  },
);
