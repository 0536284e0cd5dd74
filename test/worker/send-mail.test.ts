import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import type { Settings } from "../../config/schema.ts";
import type { MailPayload } from "../../db/jobs.ts";
import { createInvitation, deleteInvitation } from "../../server/features/invitations/service.ts";
import { queueMail } from "../../server/features/mail/service.ts";
import { issueSingleUseToken, lookAtSingleUseToken, type TokenRequest } from "../../server/features/tokens/service.ts";
import { changeUser, eraseUser, setPassword } from "../../server/features/users/service.ts";
import { type Job, PermanentFailure, RetryLater } from "../../worker/job.ts";
import { type SendMailDeps, sendMail } from "../../worker/jobs/send-mail.ts";
import { findKeptMail } from "../../worker/mail/kept-mail.ts";
import { openMail } from "../../worker/mail/open-mail.ts";
import { createMailer } from "../../worker/mail/transport.ts";
import { openTestApp, PASSWORD, type TestApp } from "../support/app.ts";
import { freePort } from "../support/services.ts";
import { type SmtpHost, type SmtpOptions, startFaulty, startSmtp } from "./support/smtp.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const OPERATOR = { actor: { kind: "operator" } } as const;
const FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

let app: TestApp;
/** A user of the test's own. */
let ada: { id: string; username: string; email: string };
let made = 0;
const cleanUps: (() => unknown)[] = [];
beforeAll(async () => {
  app = await openTestApp({ PRIMER_SERVER__PUBLIC_URL: "https://login.example.org" });
});
afterAll(() => app.close());
beforeEach(async () => {
  const username = `ada${made++}`;
  ada = { ...(await app.createUser({ username })), email: `${username}@example.test` };
  app.logLines.length = 0;
});
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

/** Changes settings until the test is over. */
function set(change: (settings: Settings) => Settings): void {
  const { settings } = app.deps;
  app.deps.settings = change(settings);
  cleanUps.push(() => {
    app.deps.settings = settings;
  });
}

/** What {@link sendMail} works with, and the server that it sends to. */
async function rig(options: SmtpOptions = {}, deps: Partial<SendMailDeps> = {}) {
  const host = await startSmtp(options);
  cleanUps.push(host.close);
  return { host, deps: depsTo(host, deps) };
}

function depsTo({ port }: Pick<SmtpHost, "port">, more: Partial<SendMailDeps> = {}): SendMailDeps {
  const { mail } = app.deps.settings;
  const settings = { ...app.deps.settings, mail: { ...mail, smtp_url: `smtp://localhost:${port}` } };
  const mailer = createMailer(settings, "/nonexistent", { step: 5000, whole: 15_000 });
  cleanUps.push(mailer.close);
  const vienna = { city: "Vienna", country: "Austria", latitude: 48.2, longitude: 16.4, accuracyKm: 20 };
  const geo = { placeOf: (ip: string) => (ip === "203.0.113.7" ? vienna : undefined) };
  return { ...app.deps, settings, home: "/nonexistent", mailer, geo, ...more };
}

const jobOf = (data: MailPayload, more: Partial<Job<"send-mail">> = {}): Job<"send-mail"> => ({
  id: app.deps.random.id(app.clock.now()),
  data,
  attempt: 1,
  createdAt: app.clock.now(),
  signal: new AbortController().signal,
  ...more,
});

/** Every mail that was queued, the oldest first, as a job. */
async function queued(): Promise<Job<"send-mail">[]> {
  const rows = await app.db.query<{ id: string }>(
    "SELECT id FROM jobs.job WHERE name = 'send-mail' AND data ->> 'user_id' = $1 ORDER BY created_on, id",
    [ada.id],
  );
  const mails = await Promise.all(rows.map(({ id }) => findKeptMail(app.deps, id)));
  return mails.flatMap((mail) => (mail ? [jobOf(mail.data, { id: mail.id, createdAt: mail.createdAt })] : []));
}

const login = (headers: Record<string, string> = {}, body: object = {}) =>
  app.request("POST", "/api/v1/auth/login", { body: { username: ada.username, password: PASSWORD, ...body }, headers });
const events = () => app.logLines.map((line) => JSON.parse(line));

const issue = (purpose: TokenRequest["purpose"], subject = ada.id, ttlMs = HOUR) =>
  app.db.transaction((tx) => issueSingleUseToken(tx, app.deps, { purpose, userId: ada.id, subject, ttlMs }));
const base = () => ({ user_id: ada.id, request_id: null });

/** One mail of each kind that goes to users. */
async function everyMail(): Promise<MailPayload[]> {
  const { body } = await login({ "user-agent": FIREFOX });
  const { session_id } = body;
  const figures = { sign_ins: 1204, failures: 96, new_users: 12, locked_accounts: 1 };
  const sealed = { token: await issue("end_session", session_id) };
  return [
    { ...base(), template: "verify_email", sealed: { token: await issue("verify_email"), to: "new@example.org" } },
    { ...base(), template: "already_registered" },
    { ...base(), template: "password_reset", sealed: { token: await issue("reset_password") } },
    { ...base(), template: "password_changed" },
    { ...base(), template: "email_changed", sealed: { to: "old@example.org" } },
    { ...base(), template: "new_sign_in", session_id, sealed },
    { ...base(), template: "suspicious_sign_in", session_id, sealed, signals: ["new_device", "failures_before"] },
    { ...base(), template: "account_locked" },
    { ...base(), template: "refresh_reused", session_id },
    { ...base(), template: "second_factor_changed", change: "recovery_code_used" },
    {
      ...base(),
      template: "daily_report",
      day: "2026-02-28",
      figures,
      week_before: figures,
      top_failing: [{ address: "198.51.100.23", failures: 55 }],
    },
    { ...base(), template: "operator_alert", what: "No backup", why: "The disk is full.", mend: "Free some space." },
  ];
}

test("every mail arrives whole, in both forms, at the address that it is for", async () => {
  const { host, deps } = await rig();
  for (const data of await everyMail()) await sendMail(deps, jobOf(data));
  expect(host.received).toHaveLength(12);
  for (const { mail } of host.received) {
    const { html, text = "", subject = "" } = mail;
    for (const form of [String(html), text, subject])
      expect(form).not.toMatch(/\{\{[#^/&]?\w+\}|undefined|\[object|NaN|Invalid/);
    expect(text).toContain(`Hello ${ada.username},`);
    expect(String(html)).toContain(`Hello ${ada.username},`);
    expect(subject.length).toBeGreaterThan(10);
  }
  const recipients = host.received.map(({ to }) => to[0]);
  expect(recipients.slice(0, 6)).toEqual([
    "new@example.org",
    ada.email,
    ada.email,
    ada.email,
    "old@example.org",
    ada.email,
  ]);
  const report = host.received[10]?.mail.text ?? "";
  expect(report).toContain("February 28, 2026");
  expect(report).toMatch(/Sign-ins +1,204 +1,204/);
  expect(host.received[4]?.mail.text).toContain("a•••@example.test");
});

// The owner of an account hears of a sign-in on a new device once, can end that session, and nothing in the mail lets anybody in.
describe("a sign-in on a new device", () => {
  beforeEach(async () => {
    await login({ "user-agent": "curl/8.5.0" });
  });

  test("device, place and time; the link has the token in its fragment, of which only the hash is kept", async () => {
    const { host, deps } = await rig();
    const { body } = await login(
      { "user-agent": FIREFOX },
      { device_name: "Call <script>alert(1)</script> http://evil.example" },
    );
    await app.db.query("UPDATE sessions SET ip = '203.0.113.7' WHERE id = $1", [body.session_id]);
    const [job, ...more] = await queued();
    expect(more).toEqual([]);
    if (!job) throw new Error("No mail was queued");
    expect(job.data).toMatchObject({ template: "new_sign_in", session_id: body.session_id });
    const token = job.data.sealed?.token ?? "";
    await sendMail(deps, job);
    const { mail, raw } = host.received[0] ?? { mail: undefined, raw: "" };
    const text = mail?.text ?? "";
    for (const part of ["Firefox 128 on Linux", "Vienna, Austria", "203.0.113.7", "March 1, 2026 at 12:00 PM UTC"]) {
      expect(text).toContain(part);
      expect(String(mail?.html)).toContain(part);
    }
    expect(text).toContain(`\nhttps://login.example.org/account/end-session#token=${token}\n`);
    expect(token).toMatch(/^[\w-]{43}$/);
    // A device is named by whoever logs in: nothing of it is a link, a tag or a script.
    for (const form of [text, String(mail?.html)]) expect(form).not.toMatch(/<script|evil\.example|alert\(1\)</);
    expect(raw).not.toContain(body.access_token);
    expect(raw).not.toContain(body.refresh_token);
    const kept = await app.db.query<{ token_hash: string; subject: string }>(
      "SELECT * FROM single_use_tokens WHERE user_id = $1",
      [ada.id],
    );
    expect(kept).toMatchObject([{ purpose: "end_session", subject: body.session_id, user_id: ada.id }]);
    expect(JSON.stringify(kept)).not.toContain(token);
  });

  // Links are made of the settings alone: whatever a request says about hosts changes none.
  test("poisoned headers change no link", async () => {
    const { host, deps } = await rig();
    await login({
      "user-agent": FIREFOX,
      host: "evil.example",
      "x-forwarded-host": "evil.example",
      "x-forwarded-proto": "http",
      forwarded: "host=evil.example;proto=http",
    });
    const [job] = await queued();
    if (job) await sendMail(deps, job);
    expect(host.received[0]?.mail.text).toContain("https://login.example.org/account/end-session#token=");
    expect(host.received[0]?.raw).not.toContain("evil.example");
  });

  test("links.end_session leads elsewhere", async () => {
    const end_session = "https://app.example.org/not-me?lang=en";
    set((settings) => ({ ...settings, links: { ...settings.links, end_session } }));
    const { host, deps } = await rig();
    await login({ "user-agent": FIREFOX });
    const [job] = await queued();
    if (job) await sendMail(deps, job);
    expect(host.received[0]?.mail.text).toContain("https://app.example.org/not-me?lang=en#token=");
  });

  test("a session that has ended meanwhile: told, and no link", async () => {
    const { host, deps } = await rig();
    await login({ "user-agent": FIREFOX });
    const [job] = await queued();
    await app.db.query("UPDATE sessions SET revoked_at = $1 WHERE user_id = $2", [
      app.clock.now().toISOString(),
      ada.id,
    ]);
    if (job) await sendMail(deps, job);
    expect(host.received[0]?.mail.text).toContain("has ended in the meantime");
    expect(host.received[0]?.mail.text).not.toContain("#token=");
  });

  const SETTINGS = [
    { setting: "new_device", known: [], other: ["new_sign_in"] },
    { setting: "every", known: ["new_sign_in"], other: ["new_sign_in"] },
    { setting: "off", known: [], other: [] },
  ] as const;
  test.each(SETTINGS)("mail.notify_login = $setting", async ({ setting, known, other }) => {
    set((settings) => ({ ...settings, mail: { ...settings.mail, notify_login: setting } }));
    const told: string[][] = [];
    for (const agent of ["curl/8.5.0", FIREFOX]) {
      const before = (await queued()).length;
      await login({ "user-agent": agent });
      told.push((await queued()).slice(before).map(({ data }) => data.template));
    }
    expect(told).toEqual([[...known], [...other]]);
  });
});

// A mail that would only confuse or tempt is not sent: its link is dead, or nobody is there to read it.
describe("a mail that has become pointless", () => {
  type Make = () => Promise<{ data: MailPayload; createdAt?: Date }>;
  const reset: Make = async () => ({
    data: { ...base(), template: "password_reset", sealed: { token: await issue("reset_password") } },
  });
  const CASES: readonly [name: string, reason: string, make: Make][] = [
    [
      "its token has expired",
      "link_dead",
      async () => {
        const mail = await reset();
        app.clock.advance(HOUR);
        return mail;
      },
    ],
    [
      "its token was used",
      "link_dead",
      async () => {
        const mail = await reset();
        await app.db.query("UPDATE single_use_tokens SET used_at = $1 WHERE user_id = $2", [
          app.clock.now().toISOString(),
          ada.id,
        ]);
        return mail;
      },
    ],
    [
      "its token was replaced by a newer one",
      "link_dead",
      async () => {
        const mail = await reset();
        await issue("reset_password");
        return mail;
      },
    ],
    [
      "its token is for something else",
      "link_dead",
      async () => ({
        data: { ...base(), template: "password_reset", sealed: { token: await issue("verify_email") } },
      }),
    ],
    [
      "its user was erased",
      "user_gone",
      async () => {
        const mail = await reset();
        await app.db.query("DELETE FROM users WHERE id = $1", [ada.id]);
        return mail;
      },
    ],
    [
      "the address that it was for is not known any more",
      "address_gone",
      async () => ({ data: { ...base(), template: "email_changed" } as unknown as MailPayload }),
    ],
    [
      "its user was erased and the row stayed",
      "user_gone",
      async () => {
        const data: MailPayload = { ...base(), template: "password_changed" };
        await eraseUser(app.deps, ada.id, OPERATOR);
        return { data };
      },
    ],
    [
      "its user is disabled and could not follow the link",
      "user_disabled",
      async () => {
        const mail = await reset();
        await changeUser(app.deps, ada.id, { status: "disabled" }, OPERATOR);
        return mail;
      },
    ],
    [
      "a notice of more than a week ago",
      "too_old",
      async () => ({
        data: { ...base(), template: "password_changed" },
        createdAt: new Date(app.clock.now().getTime() - 7 * DAY - 1),
      }),
    ],
    [
      "a report of more than two days ago",
      "too_old",
      async () => ({
        data: { ...base(), template: "operator_alert", what: "a", why: "b", mend: "c" },
        createdAt: new Date(app.clock.now().getTime() - 2 * DAY - 1),
      }),
    ],
  ];
  test.each(CASES)("%s", async (_name, reason, make) => {
    const { host, deps } = await rig();
    const { data, createdAt } = await make();
    const job = jobOf(data, createdAt ? { createdAt } : {});
    await sendMail(deps, job);
    expect(host.received).toEqual([]);
    expect(events()).toContainEqual(expect.objectContaining({ event: "mail.obsolete", reason, mail_id: job.id }));
  });

  test("a disabled user still hears that the password was changed", async () => {
    const { host, deps } = await rig();
    await changeUser(app.deps, ada.id, { status: "disabled" }, OPERATOR);
    await sendMail(deps, jobOf({ ...base(), template: "password_changed" }));
    expect(host.received).toHaveLength(1);
  });
});

describe("sending", () => {
  // Where the answer to a mail that was taken is lost, it comes twice and can be told to be one.
  test("every attempt has the same Message-ID, and another mail another one", async () => {
    const lost = await startFaulty("message", "hang_up");
    cleanUps.push(lost.close);
    const { host, deps } = await rig();
    const job = jobOf({ ...base(), template: "password_changed" });
    const first = await sendMail(depsTo(lost), job).catch((error) => error);
    expect(first).toBeInstanceOf(Error);
    expect(first).not.toBeInstanceOf(PermanentFailure);
    await sendMail(deps, { ...job, attempt: 2 });
    await sendMail(deps, { ...job, attempt: 3 });
    await sendMail(deps, jobOf({ ...base(), template: "password_changed" }));
    const ids = host.received.map(({ mail }) => mail.messageId);
    expect(ids.slice(0, 2)).toEqual([`<${job.id}@login.example.org>`, `<${job.id}@login.example.org>`]);
    expect(new Set(ids).size).toBe(2);
  });

  // What the log and the queue keep of a failure names neither the address nor the link.
  test.each([
    [550, true],
    [450, false],
  ])("a recipient that is answered %i: dead at once: %p", async (responseCode, isFinal) => {
    const onRecipient = (address: string) => ({ responseCode, message: `5.1.1 <${address}> no such user` });
    const { deps } = await rig({ onRecipient });
    const token = await issue("reset_password");
    const job = jobOf({ ...base(), template: "password_reset", sealed: { token } });
    const error = await sendMail(deps, job).catch((thrown) => thrown);
    expect(error instanceof PermanentFailure).toBe(isFinal);
    expect(events()).toContainEqual(expect.objectContaining({ event: isFinal ? "mail.refused" : "mail.deferred" }));
    for (const secret of [ada.email, token]) {
      expect(app.logLines.join("")).not.toContain(secret);
      expect(String(error.message)).not.toContain(secret);
    }
  });

  // A server that is down costs a mail no try once that is known.
  test("while every server is left alone, the mail is put off", async () => {
    const { mailer } = depsTo({ port: await freePort() });
    const job = jobOf({ ...base(), template: "password_changed" });
    const errors: unknown[] = [];
    for (let count = 0; count < 6; count++) {
      errors.push(await sendMail(depsTo({ port: 1 }, { mailer }), job).catch((error) => error));
    }
    expect(errors.map((error) => error instanceof RetryLater)).toEqual([...Array(5).fill(false), true]);
  });

  // Without a mail server nothing is lost, and the log gives nothing away: it names the mail by its id.
  test("while no mail server is set, mails are kept and named in the log; once there is one they are sent", async () => {
    expect((await openMail(app.deps, "/nonexistent")).handlers).toEqual({});
    await setPassword(app.deps, ada.id, "another correct horse battery", OPERATOR);
    const [job] = await queued();
    if (!job) throw new Error("No mail was kept");
    expect(events()).toContainEqual(
      expect.objectContaining({ event: "mail.kept", mail_id: job.id, template: "password_changed" }),
    );
    const { host, deps } = await rig();
    const { handlers, close } = await openMail({ ...app.deps, settings: deps.settings }, "/nonexistent");
    cleanUps.push(close);
    await handlers["send-mail"]?.(app.deps, job);
    expect(app.deps.dependencies.list().map(([name]) => name)).toContain("smtp");
    expect(host.received).toMatchObject([{ to: [ada.email] }]);
  });
});

// Nobody's mailbox is flooded by typing their address, and no notice is left out.
describe("how many mails there are", () => {
  const requestReset = (emailKey = ada.email, on: Pick<TestApp, "deps" | "db"> = app) =>
    app.db.transaction((tx) =>
      queueMail(tx, on.deps, { ...base(), template: "password_reset" } as const, {
        emailKey,
        sealed: async () => ({
          token: await issueSingleUseToken(tx, on.deps, {
            purpose: "reset_password",
            userId: ada.id,
            subject: emailKey,
            ttlMs: DAY,
          }),
        }),
      }),
    );
  const times = async (count: number, work: () => Promise<boolean>) => {
    const answers: boolean[] = [];
    for (let index = 0; index < count; index++) answers.push(await work());
    return answers.filter(Boolean).length;
  };

  test("3 in 15 minutes to one address, of any number at the same moment; the last link that was sent works", async () => {
    const other = await app.otherNode();
    const nodes = [app, { ...app, deps: other.deps }];
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => requestReset(undefined, nodes[index % 2])),
    );
    expect(answers.filter(Boolean)).toHaveLength(3);
    const mails = await queued();
    expect(mails).toHaveLength(3);
    const alive = await Promise.all(
      mails.map(({ data }) => lookAtSingleUseToken(app.db.orm, app.deps, data.sealed?.token ?? "")),
    );
    expect(alive.filter(Boolean)).toHaveLength(1);
    expect(await requestReset(`bob-${ada.email}`)).toBe(true);
  });

  test("there is room again after 15 minutes, and for 10 a day", async () => {
    expect(await times(5, requestReset)).toBe(3);
    app.clock.advance(15 * MINUTE);
    expect(await times(5, requestReset)).toBe(3);
    app.clock.advance(15 * MINUTE);
    expect(await times(5, requestReset)).toBe(3);
    app.clock.advance(15 * MINUTE);
    expect(await times(5, requestReset)).toBe(1);
    app.clock.advance(DAY - 45 * MINUTE);
    expect(await times(5, requestReset)).toBe(3);
  });

  test("kinds of mail do not take each other's room", async () => {
    expect(await times(5, requestReset)).toBe(3);
    const already = { ...base(), template: "already_registered" } as const;
    const queue = () => app.db.transaction((tx) => queueMail(tx, app.deps, already, { emailKey: ada.email }));
    expect(await times(5, queue)).toBe(3);
  });

  test("a request that is rolled back takes no room", async () => {
    const fails = app.db.transaction(async (tx) => {
      await queueMail(tx, app.deps, { ...base(), template: "already_registered" }, { emailKey: ada.email });
      throw new RangeError("cut off");
    });
    await expect(fails).rejects.toBeInstanceOf(RangeError);
    const { length } = await app.db.query("SELECT * FROM mail_counters");
    await app.db.transaction((tx) =>
      queueMail(tx, app.deps, { ...base(), template: "already_registered" }, { emailKey: ada.email }),
    );
    expect(await app.db.query("SELECT * FROM mail_counters")).toHaveLength(length + 1);
  });

  test("no table tells whom strangers have written to", async () => {
    await requestReset();
    expect(JSON.stringify(await app.db.query("SELECT * FROM mail_counters"))).not.toMatch(/ada\d|example/);
  });

  test("of many notices three go out at once, and one more stands for all others", async () => {
    const notify = () =>
      app.db.transaction((tx) => queueMail(tx, app.deps, { ...base(), template: "password_changed" }));
    expect(await times(10, notify)).toBe(10);
    const rows = await app.db.query<{ several: string | null; waits: number }>(
      `SELECT data ->> 'several' AS several, round(extract(epoch FROM start_after - created_on) / 60)::int AS waits
       FROM jobs.job WHERE data ->> 'user_id' = $1 ORDER BY start_after`,
      [ada.id],
    );
    expect(rows).toEqual([...Array(3).fill({ several: null, waits: 0 }), { several: "true", waits: 15 }]);
    const { host, deps } = await rig();
    const last = (await queued()).find(({ data }) => data.several);
    if (last) await sendMail(deps, last);
    expect(host.received[0]?.mail.text).toContain("This happened several times");
    app.clock.advance(15 * MINUTE);
    expect(await times(2, notify)).toBe(2);
    expect(await queued()).toHaveLength(6);
  });
});

// Who is invited hears how to register, and from whom; who has no invitation any more hears nothing.
describe("an invitation", () => {
  const invited = "Guest@example.org";
  const invite = async (address = invited) => {
    const by = { actor: { kind: "user", id: ada.id }, rights: { permissions: ["*:*"] } } as const;
    return createInvitation(app.deps, { email: address, roles: ["user"] }, by);
  };

  test("without a page of the installation's own the mail has the code", async () => {
    const { token } = await invite();
    const [job, ...more] = await queued();
    expect([job?.data.template, more]).toEqual(["invitation", []]);
    const [row] = await app.db.query<{ data: string }>("SELECT data::text FROM jobs.job WHERE id = $1", [job?.id]);
    for (const secret of [token, invited, invited.toLowerCase()]) expect(row?.data).not.toContain(secret);
    const { host, deps } = await rig();
    if (job) await sendMail(deps, job);
    const [sent] = host.received;
    expect(sent?.to).toEqual([invited]);
    const text = sent?.mail.text ?? "";
    expect(text).toContain("Hello,");
    expect(text).toMatch(new RegExp(`Invitation code +${token}\\n`));
    expect(text).toMatch(/Works until +\w+ \d+, 2026/);
    expect(text).toContain(`${ada.username} invites you`);
    expect(text).not.toContain("#token=");
  });

  test("with one it has a link there", async () => {
    set((settings) => ({ ...settings, links: { ...settings.links, invitation: "https://app.example.org/join" } }));
    const { token } = await invite("other@example.org");
    const { host, deps } = await rig();
    for (const job of await queued()) await sendMail(deps, job);
    const text = host.received[0]?.mail.text ?? "";
    expect(text).toContain(`https://app.example.org/join#token=${token}`);
    expect(text).not.toContain("Invitation code");
  });

  test.each([
    ["is taken back", (id: string) => deleteInvitation(app.deps, id, OPERATOR)],
    ["has expired", async () => app.clock.advance(3 * DAY)],
    ["is from somebody who is disabled", () => changeUser(app.deps, ada.id, { status: "disabled" }, OPERATOR)],
  ])("that %s is not sent", async (_what, happens) => {
    const { id } = await invite(`${_what.length}@example.org`);
    await happens(id);
    const { host, deps } = await rig();
    for (const job of await queued()) await sendMail(deps, job).catch(() => {});
    expect(host.received).toEqual([]);
    expect(events()).toContainEqual(expect.objectContaining({ event: "mail.obsolete", reason: "link_dead" }));
  });

  // Nobody is flooded by whoever may invite; and where nobody can register nobody is invited to.
  test("one address gets three in a quarter of an hour, and none while registration is closed", async () => {
    for (let count = 0; count < 5; count++) await invite("much@example.org");
    expect(await queued()).toHaveLength(3);
    set((settings) => ({ ...settings, registration: { ...settings.registration, mode: "closed" } }));
    await invite("closed@example.org");
    expect(await queued()).toHaveLength(3);
  });
});

// Of the links for one thing only the newest works, however many are asked for at the same moment.
test("single-use tokens: the newest of a purpose and subject replaces the others", async () => {
  const [one, another] = [`one of ${ada.id}`, `another of ${ada.id}`];
  const tokens = await Promise.all(Array.from({ length: 20 }, () => issue("end_session", one)));
  const elsewhere = await issue("end_session", another);
  const other = await issue("verify_email", one);
  const alive = await Promise.all(tokens.map((token) => lookAtSingleUseToken(app.db.orm, app.deps, token)));
  expect(alive.filter(Boolean)).toHaveLength(1);
  for (const token of [elsewhere, other]) expect(await lookAtSingleUseToken(app.db.orm, app.deps, token)).toBeDefined();
  app.clock.advance(HOUR);
  expect(await lookAtSingleUseToken(app.db.orm, app.deps, elsewhere)).toBeUndefined();
});
