import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { OperatorError } from "../../config/errors.ts";
import { loadSettings } from "../../config/load.ts";
import { openDatabase } from "../../db/open.ts";
import { certificateAuthority } from "../support/certificates.ts";
import { type OwnPostgres, ownPostgres, whyNoPostgres } from "./own-postgres.ts";
import { canRun, primer, scratchFolder } from "./processes.ts";
import { tableRow } from "./table.ts";

const possible = canRun(whyNoPostgres(), "TLS to PostgreSQL");
const home = scratchFolder();
const ca = certificateAuthority("The database's CA");

const FILES: Readonly<Record<string, string>> = {
  "right.pem": ca.cert,
  "both.pem": certificateAuthority("Another CA").cert + ca.cert,
  "wrong.pem": certificateAuthority("Another CA").cert,
  "namesake.pem": certificateAuthority("The database's CA").cert,
  "key.pem": ca.issue(["127.0.0.1"]).key,
};

let postgres: OwnPostgres;
beforeAll(async () => {
  for (const [name, content] of Object.entries(FILES)) writeFileSync(join(home.path, name), content);
  if (possible) postgres = await ownPostgres({ tls: ca.issue(["127.0.0.1"]) });
}, 60_000);
afterAll(async () => {
  if (possible) await postgres.remove();
  home.remove();
});

const variables = (host: string, sslmode: string, file: string): Record<string, string> => ({
  DATABASE_URL: `${postgres.url.replace("127.0.0.1", host)}${sslmode && `?sslmode=${sslmode}`}`,
  ...(file ? { PRIMER_DATABASE__TLS_CA: file } : {}),
});

/** Connects; answers "encrypted" or "plain", or what it was refused with: the exit code and the driver's code. */
async function connecting(host: string, sslmode: string, file: string): Promise<string> {
  const { settings } = loadSettings("/nonexistent", variables(host, sslmode, file));
  try {
    const database = await openDatabase(settings, home.path, false);
    const [row] = await database.query<{ ssl: boolean }>("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    await database.close();
    return row?.ssl ? "encrypted" : "plain";
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    return [error.exitCode, (error.cause as { code?: string } | undefined)?.code].join(" ").trim();
  }
}

describe.if(possible)("TLS to PostgreSQL", () => {
  const WRONG_CA = "3 UNABLE_TO_VERIFY_LEAF_SIGNATURE";
  const WRONG_NAME = "3 ERR_TLS_CERT_ALTNAME_INVALID";

  // Encryption counts only with whom it was meant for: a certificate of an unknown CA, or for another host, is refused.
  test.concurrent.each([
    ["the right CA", "127.0.0.1", "", "right.pem", "encrypted"],
    ["the right CA, verify-full", "127.0.0.1", "verify-full", "right.pem", "encrypted"],
    ["the right CA, require", "127.0.0.1", "require", "right.pem", "encrypted"],
    ["the right CA among others", "127.0.0.1", "", "both.pem", "encrypted"],
    ["no CA named", "127.0.0.1", "verify-full", "", WRONG_CA],
    ["no CA named, require", "127.0.0.1", "require", "", WRONG_CA],
    ["another CA", "127.0.0.1", "", "wrong.pem", WRONG_CA],
    ["another name", "localhost", "", "right.pem", WRONG_NAME],
    ["another address", "127.0.0.2", "", "right.pem", WRONG_NAME],
    ["a file that is not there", "127.0.0.1", "", "missing.pem", "2 ENOENT"],
    ["a file without a certificate", "127.0.0.1", "", "key.pem", "2"],
    ["plain text, which nobody forbade", "127.0.0.1", "", "", "plain"],
    ["a mode that may end in plain text", "127.0.0.1", "prefer", "", "2"],
  ])("%s", async (_name, host, sslmode, file, expected) => {
    expect(await connecting(host, sslmode, file)).toBe(expected);
  });

  // A CA of the same name with another key has signed nothing.
  test("a CA that only has the right one's name", async () => {
    expect(await connecting("127.0.0.1", "", "namesake.pem")).toStartWith("3 ");
  });

  // An operator is told what is wrong with the certificate, and which setting mends it.
  test("a command ends with exit 3 and names database.tls_ca", async () => {
    const ran = await primer(home.path, ["migrate", "--status"], variables("127.0.0.1", "", "wrong.pem")).finished;
    expect(ran.exitCode).toBe(3);
    expect(ran.notes).toContain("database.tls_ca");
  });
});

// A certificate that was good once is none; the right CA does not change that.
test.if(possible)("a certificate that has expired is refused", async () => {
  const old = await ownPostgres({ tls: ca.issue(["127.0.0.1"], -1) });
  try {
    const ran = primer(home.path, ["migrate", "--status"], {
      DATABASE_URL: old.url,
      PRIMER_DATABASE__TLS_CA: "right.pem",
    });
    expect((await ran.finished).exitCode).toBe(3);
    tableRow(
      "PostgreSQL with a wrong, foreign or expired certificate",
      "no connection, exit 3, and the setting that mends it is named",
      "16 kinds of certificate, host and mode as expected",
    );
  } finally {
    await old.remove();
  }
});
