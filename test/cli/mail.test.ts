import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { generateSecret } from "../../config/secrets.ts";
import { openPglite } from "../../db/pglite.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { MAIL_TEMPLATES } from "../../worker/mail/samples.ts";
import { certificateAuthority } from "../support/certificates.ts";
import { runPrimer } from "../support/server.ts";
import { freePort } from "../support/services.ts";
import { type SmtpHost, type SmtpOptions, startSmtp } from "../worker/support/smtp.ts";
import { ADMIN, jsonOf, openScratch } from "./support/home.ts";

const scratch = openScratch();
afterAll(() => scratch.remove());

/** No database is needed for most of it. */
let home: string;
beforeAll(() => {
  home = scratch.path("home");
  mkdirSync(home);
});
const hosts: SmtpHost[] = [];
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.close();
});
async function smtp(options: SmtpOptions = {}): Promise<SmtpHost> {
  const host = await startSmtp(options);
  hosts.push(host);
  return host;
}

const mail = (args: readonly string[], environment: Record<string, string> = {}, at = home) =>
  runPrimer(["mail", ...args, "--dir", at], { environment });

describe("mail preview", () => {
  test("as text, as JSON with both forms, as a file for the browser", async () => {
    const text = await mail(["preview", "new_sign_in"]);
    expect(text).toMatchObject({ exitCode: 0, stderr: "" });
    expect(text.stdout).toStartWith("Subject: New sign-in to primer\n\n");
    const json = jsonOf(await mail(["preview", "password-reset", "--json"]));
    expect(json).toMatchObject({ subject: "Set a new password for primer", html: expect.stringContaining("<h1") });
    const file = join(scratch.folder, "mail.html");
    expect(await mail(["preview", "daily_report", "--html", file])).toMatchObject({ exitCode: 0 });
    expect(readFileSync(file, "utf8")).toStartWith("<!doctype html>");
  });

  test("a mail that there is not: exit 2, and the names of all", async () => {
    const { exitCode, stderr } = await mail(["preview", "welcome"]);
    expect(exitCode).toBe(2);
    for (const name of MAIL_TEMPLATES) expect(stderr).toContain(name);
  });

  test("a file of the home that is of no use is told of here and by config check, and passed over", async () => {
    const own = scratch.path("own");
    mkdirSync(join(own, "mail/de"), { recursive: true });
    writeFileSync(join(own, "mail/de/new_sign_in.toml"), 'subject = "{{nothing}}"');
    const { exitCode, stdout, stderr } = await mail(["preview", "new_sign_in", "--locale", "de"], {}, own);
    expect({ exitCode, subject: stdout.split("\n", 1)[0] }).toEqual({
      exitCode: 0,
      subject: "Subject: New sign-in to primer",
    });
    expect(stderr).toContain("mail/de/new_sign_in.toml");
    const secret = () => generateSecret(systemRandom.bytes);
    const keys = { PRIMER_MASTER_KEY: secret(), PRIMER_PEPPER: secret() };
    const check = await runPrimer(["config", "check", "--json", "--dir", own], { environment: keys });
    expect(check.exitCode).toBe(0);
    expect(jsonOf(check).unused_files).toMatchObject([{ path: expect.stringContaining("new_sign_in.toml") }]);
  });
});

// The operator sees of each server how far it lets a mail come, and what to do.
describe("mail test", () => {
  test("a mail through a server that demands TLS and a login", async () => {
    const ca = certificateAuthority();
    writeFileSync(join(home, "ca.pem"), ca.cert);
    const host = await smtp({ tls: ca.issue(["localhost"]), login: { user: "primer", pass: "p:a@s" } });
    const environment = {
      SMTP_URL: `smtp://primer:p%3Aa%40s@localhost:${host.port}`,
      PRIMER_MAIL__TLS_CA: "ca.pem",
    };
    const { exitCode, stdout, stderr } = await mail(["test", "ada@example.org"], environment);
    expect({ exitCode, to: host.received.map(({ to }) => to) }).toEqual({ exitCode: 0, to: [["ada@example.org"]] });
    expect(host.received[0]).toMatchObject({ secure: true, user: "primer" });
    expect(stderr).toContain("STARTTLS");
    expect(stdout + stderr).not.toMatch(/p:a@s|p%3Aa/);
  });

  test("the first server is down and the second one takes it", async () => {
    const host = await smtp();
    const down = await freePort();
    const environment = {
      SMTP_URL: `smtp://localhost:${down}`,
      PRIMER_MAIL__SMTP_FALLBACK_URLS: `smtp://localhost:${host.port}`,
    };
    const ran = await mail(["test", "ada@example.org", "--json"], environment);
    expect(ran.exitCode).toBe(0);
    expect(jsonOf(ran)).toMatchObject({
      sent: true,
      provider: "smtp_2",
      servers: [
        { provider: "smtp", ok: false, step: "connect" },
        { provider: "smtp_2", ok: true },
      ],
    });
  });

  const FAILURES: readonly [name: string, options: SmtpOptions | undefined, exitCode: number, step: string][] = [
    ["nobody listens", undefined, 3, "connect"],
    ["the login is refused", { login: { user: "primer", pass: "another" } }, 3, "log_in"],
    [
      "the recipient is refused",
      { onRecipient: () => ({ responseCode: 550, message: "5.1.1 unknown" }) },
      1,
      "recipient",
    ],
    ["the sender is refused", { onMailFrom: () => ({ responseCode: 553, message: "5.7.1 no" }) }, 1, "sender"],
  ];
  test.each(FAILURES)("%s", async (_name, options, exitCode, step) => {
    const port = options ? (await smtp(options)).port : await freePort();
    const login = options?.login ? "primer:wrong-canary@" : "";
    const ran = await mail(["test", "ada@example.org", "--json"], { SMTP_URL: `smtp://${login}localhost:${port}` });
    expect({ exitCode: ran.exitCode, ...jsonOf(ran) }).toMatchObject({ exitCode, sent: false, step });
    expect(jsonOf(ran).mend).not.toBe("");
    expect(ran.stdout + ran.stderr).not.toContain("canary");
  });

  test("no server is set, or no address given: exit 2", async () => {
    expect((await mail(["test", "ada@example.org"])).exitCode).toBe(2);
    expect((await mail(["test", "ada"], { SMTP_URL: "smtp://localhost:1" })).exitCode).toBe(2);
  });
});

// Without a mail server an operator gets at each mail, on the machine and nowhere else.
test("mail show prints a mail that is kept", async () => {
  const own = await scratch.home();
  const changed = await runPrimer(["users", "set-password", ADMIN.username, "--password-stdin", "--dir", own], {
    input: "another correct horse battery staple",
  });
  expect(changed.exitCode).toBe(0);
  const database = await openPglite(own);
  const [job] = await database.query<{ id: string }>("SELECT id FROM jobs.job WHERE name = 'send-mail'");
  await database.close();
  const shown = await mail(["show", job?.id ?? "", "--json"], {}, own);
  expect({ exitCode: shown.exitCode, ...jsonOf(shown) }).toMatchObject({
    exitCode: 0,
    id: job?.id,
    template: "password_changed",
    subject: "Your password for primer was changed",
    text: expect.stringContaining(`Hello ${ADMIN.username},`),
  });
  expect((await mail(["show", job?.id ?? ""], {}, own)).stdout).toContain("\nSubject: Your password");
  for (const id of ["nothing", "019b76da-a800-7000-8000-000000000000"]) {
    expect((await mail(["show", id], {}, own)).exitCode).toBe(1);
  }
});

// Doctor speaks to the mail server: an open port is no mail server, and a login that is refused sends no mail.
describe("doctor", () => {
  const found = async (environment: Record<string, string>) => {
    const ran = await runPrimer(["doctor", "--json", "--dir", home], { environment });
    const findings = jsonOf(ran).findings as { check: string; state: string }[];
    return findings.filter(({ check }) => check === "mail").map(({ state }) => state);
  };

  test("a server that answers, one that refuses the login, one whose certificate is nobody's", async () => {
    const works = await smtp();
    const refuses = await smtp({ login: { user: "primer", pass: "another" } });
    const nobodys = await smtp({ tls: certificateAuthority().issue(["localhost"]), secure: true });
    const urls = [`smtp://primer:x@localhost:${refuses.port}`, `smtps://localhost:${nobodys.port}`];
    const environment = {
      SMTP_URL: `smtp://localhost:${works.port}`,
      PRIMER_MAIL__SMTP_FALLBACK_URLS: urls.join(","),
    };
    expect(await found(environment)).toEqual(["ok", "failed", "failed"]);
    expect([works, refuses, nobodys].flatMap(({ received }) => received)).toEqual([]);
  });
});

// In production no mail leaves the machine in plain text.
test.each([
  ["smtp://mail.example.org", 2],
  ["smtp://127.0.0.1", 0],
  ["smtps://mail.example.org", 0],
])("mail.tls = off in production with %s: exit %i", async (url, exitCode) => {
  const environment = {
    PRIMER_ENVIRONMENT: "production",
    PRIMER_SERVER__PUBLIC_URL: "https://login.example.org",
    PRIMER_MAIL__TLS: "off",
    SMTP_URL: url,
  };
  const ran = await mail(["preview", "new_sign_in"], environment);
  expect(ran.exitCode).toBe(exitCode);
  if (exitCode === 2) expect(ran.stderr).toContain("mail.tls");
});
