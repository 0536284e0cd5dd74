import { afterEach, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { explainSmtpError, isRefusalForGood, type SmtpFault } from "../../worker/mail/smtp-errors.ts";
import { createMailer, DEADLINES, type Deadlines, type Message } from "../../worker/mail/transport.ts";
import { certificateAuthority } from "../support/certificates.ts";
import { freePort } from "../support/services.ts";
import { mailHome, message, settingsOf } from "./support/mail.ts";
import { type SmtpHost, type SmtpOptions, type Step, startFaulty, startSmtp } from "./support/smtp.ts";

const FULL = process.env.TEST_FULL === "1" || process.env.TEST_FULL === "true";
/** The product's own deadlines take ten seconds each. */
const SHORT: Deadlines = { step: 400, whole: 1500 };
if (!FULL) process.stdout.write("Left out: mail servers that stall, with the deadlines of the product (TEST_FULL=1)\n");

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function smtp(options: SmtpOptions = {}): Promise<SmtpHost> {
  const host = await startSmtp(options);
  cleanUps.push(host.close);
  return host;
}
async function faulty(...[step, fault]: Parameters<typeof startFaulty>): Promise<SmtpHost> {
  const host = await startFaulty(step, fault);
  cleanUps.push(host.close);
  return host;
}

/** A mailer to these URLs, with further settings. */
function mailerTo(
  urls: readonly string[],
  variables: Record<string, string> = {},
  deadlines = SHORT,
  home = "/nonexistent",
) {
  const [first = "", ...others] = urls;
  const fallbacks = others.length > 0 ? { PRIMER_MAIL__SMTP_FALLBACK_URLS: others.join(",") } : {};
  const mailer = createMailer(settingsOf({ SMTP_URL: first, ...fallbacks, ...variables }), home, deadlines);
  cleanUps.push(mailer.close);
  return mailer;
}
const urlOf = ({ port }: { port: number }, scheme = "smtp", login = "") => `${scheme}://${login}localhost:${port}`;

/** What went wrong; undefined where the mail was taken. */
const errorOf = (work: Promise<unknown>): Promise<unknown> => work.then(() => undefined).catch((error) => error);

test("a mail arrives once, in both forms, with its own Message-ID, and says that a program wrote it", async () => {
  const host = await smtp();
  const replyTo = { name: "", address: "help@example.org" };
  const sent = await mailerTo([urlOf(host)]).send(message({ replyTo }));
  expect(sent).toMatchObject({ provider: "smtp" });
  expect(host.received).toHaveLength(1);
  const [{ raw, mail, from, to } = { raw: "", mail: undefined, from: "", to: [] }] = host.received;
  expect({ from, to }).toEqual({ from: "login@example.org", to: ["ada@example.org"] });
  expect(mail).toMatchObject({ messageId: message().messageId, subject: "A subject", text: "A text\n" });
  expect(mail?.html).toContain("<p>A text</p>");
  expect(mail?.from?.value).toEqual([{ name: "Example", address: "login@example.org" }]);
  expect(mail?.replyTo?.value).toMatchObject([{ address: "help@example.org" }]);
  expect(mail?.headers.get("auto-submitted")).toBe("auto-generated");
  expect(raw).not.toMatch(/^bcc:/im);
});

// Mails carry links that open accounts: none leaves this machine but over TLS with a certificate that was verified.
describe("TLS", () => {
  const ca = certificateAuthority();
  const good = ca.issue(["localhost"]);
  const wrongName = ca.issue(["mail.example.org"]);
  const foreign = certificateAuthority("Somebody else").issue(["localhost"]);
  const OWN_CA = { PRIMER_MAIL__TLS_CA: "ca.pem" };

  const CASES: readonly [
    name: string,
    server: SmtpOptions,
    scheme: string,
    settings: Record<string, string>,
    outcome: string,
  ][] = [
    ["smtps of a CA that is known", { tls: good, secure: true }, "smtps", OWN_CA, "encrypted"],
    ["smtps of a CA that is not known", { tls: foreign, secure: true }, "smtps", OWN_CA, "refused"],
    ["smtps with the system's CAs alone, on this machine too", { tls: good, secure: true }, "smtps", {}, "refused"],
    ["smtps with a certificate for another name", { tls: wrongName, secure: true }, "smtps", OWN_CA, "refused"],
    ["STARTTLS of a CA that is known", { tls: good }, "smtp", OWN_CA, "encrypted"],
    ["STARTTLS of a CA that is not known", { tls: foreign }, "smtp", OWN_CA, "refused"],
    ["STARTTLS with a certificate for another name", { tls: wrongName }, "smtp", OWN_CA, "refused"],
    ["STARTTLS that is not offered", {}, "smtp", OWN_CA, "refused"],
    [
      "STARTTLS that is not offered and not demanded",
      {},
      "smtp",
      { ...OWN_CA, PRIMER_MAIL__TLS: "opportunistic" },
      "plain",
    ],
    [
      "STARTTLS that is offered, of a CA that is not known",
      { tls: foreign },
      "smtp",
      { ...OWN_CA, PRIMER_MAIL__TLS: "opportunistic" },
      "refused",
    ],
    ["no TLS by setting", { tls: good }, "smtp", { PRIMER_MAIL__TLS: "off" }, "plain"],
    ["on this machine, nothing offered", {}, "smtp", {}, "plain"],
    ["on this machine, a certificate that nobody has signed", { tls: foreign }, "smtp", {}, "encrypted"],
  ];

  test.each(CASES)("%s", async (_name, server, scheme, settings, outcome) => {
    const { home, remove } = mailHome({ "ca.pem": ca.cert });
    cleanUps.push(remove);
    const host = await smtp(server);
    const error = await errorOf(mailerTo([urlOf(host, scheme)], settings, SHORT, home).send(message()));
    const [received] = host.received;
    const seen = error !== undefined ? "refused" : received?.secure ? "encrypted" : "plain";
    expect(seen).toBe(outcome);
    expect(host.received).toHaveLength(outcome === "refused" ? 0 : 1);
    if (outcome === "refused") expect(explainSmtpError(error)).toMatchObject({ step: "secure", isUnreachable: true });
  });

  test("a host elsewhere has to offer STARTTLS unless the settings say otherwise", () => {
    const security = (url: string, tls = "required") =>
      mailerTo([url], { PRIMER_MAIL__TLS: tls }).providers.map((provider) => provider.security)[0];
    expect(security("smtp://mail.example.org")).toBe("starttls");
    expect(security("smtp://mail.example.org", "opportunistic")).toBe("starttls_if_offered");
    expect(security("smtps://mail.example.org", "off")).toBe("tls");
  });

  test("a CA file that is not there is an error that names the setting", () => {
    const { home, remove } = mailHome();
    cleanUps.push(remove);
    writeFileSync(join(home, "other.pem"), "");
    expect(() => mailerTo(["smtp://localhost"], OWN_CA, SHORT, home)).toThrow(/mail\.tls_ca/);
  });
});

// A server that stalls or goes away holds nobody up for longer than one step, and a mail is never taken for sent.
describe("a server that fails", () => {
  const STEPS: readonly Step[] = ["connect", "EHLO", "MAIL", "RCPT", "DATA", "message"];
  const deadlines = FULL ? DEADLINES : SHORT;
  const { step } = deadlines;

  test.each([...STEPS])("stalls at %s", async (at) => {
    const mailer = mailerTo([urlOf(await faulty(at, "stall"))], {}, deadlines);
    const began = performance.now();
    const error = await errorOf(mailer.send(message()));
    const took = performance.now() - began;
    expect(error).toBeDefined();
    expect(isRefusalForGood(error)).toBe(false);
    expect(took).toBeGreaterThan(step * 0.9);
    expect(took).toBeLessThan(step + 1500);
  });

  test.each([...STEPS])("hangs up at %s", async (at) => {
    const error = await errorOf(mailerTo([urlOf(await faulty(at, "hang_up"))]).send(message()));
    expect(error).toBeDefined();
    expect(isRefusalForGood(error)).toBe(false);
  });

  test("that always says something, and never comes to an end, is left after the time for all of it", async () => {
    const began = performance.now();
    const error = await errorOf(mailerTo([urlOf(await faulty("MAIL", "trickle"))]).send(message()));
    expect(error).toBeDefined();
    expect(performance.now() - began).toBeLessThan(SHORT.whole + 1000);
  });

  test("a job that has to end ends the sending at once", async () => {
    const stop = new AbortController();
    const sending = errorOf(
      mailerTo([urlOf(await faulty("DATA", "stall"))], {}, DEADLINES).send(message(), stop.signal),
    );
    const began = performance.now();
    setTimeout(() => stop.abort(), 100);
    expect(await sending).toBeDefined();
    expect(performance.now() - began).toBeLessThan(1500);
  });

  test("takes the mail and hangs up: it was sent, and so is the next one over a new connection", async () => {
    const host = await faulty("message", "take_and_hang_up");
    const mailer = mailerTo([urlOf(host)]);
    for (const _ of [1, 2, 3]) expect((await mailer.send(message())).response).toContain("taken");
    expect(host.connections()).toBe(3);
  });
});

// Only what the server has against this recipient or this mail is final; whatever else may be mended, and is tried again.
describe("what a server answers", () => {
  const LOGIN = { user: "primer", pass: "p@ss w/rd" };
  const CASES: readonly [name: string, options: SmtpOptions, final: boolean, step: SmtpFault["step"]][] = [
    [
      "451 to the recipient",
      { onRecipient: () => ({ responseCode: 451, message: "4.7.1 try later" }) },
      false,
      "recipient",
    ],
    ["452 to the message", { onMessage: () => ({ responseCode: 452, message: "4.3.1 no room" }) }, false, "message"],
    [
      "550 to the recipient",
      { onRecipient: () => ({ responseCode: 550, message: "5.1.1 unknown" }) },
      true,
      "recipient",
    ],
    [
      "550 to the recipient: we may not relay",
      { onRecipient: () => ({ responseCode: 550, message: "Relaying denied" }) },
      false,
      "recipient",
    ],
    [
      "530 to the recipient: we have to log in",
      { onRecipient: () => ({ responseCode: 530, message: "5.7.0 log in" }) },
      false,
      "recipient",
    ],
    ["554 to the message", { onMessage: () => ({ responseCode: 554, message: "5.7.1 spam" }) }, true, "message"],
    ["553 to the sender", { onMailFrom: () => ({ responseCode: 553, message: "5.7.1 not yours" }) }, false, "sender"],
    ["535 to the login", { login: { user: "primer", pass: "another" } }, false, "log_in"],
  ];
  test.each(CASES)("%s", async (_name, options, final, step) => {
    const host = await smtp(options);
    const login = options.login ? "primer:wrong@" : "";
    const error = await errorOf(mailerTo([urlOf(host, "smtp", login)]).send(message()));
    expect({ final: isRefusalForGood(error), step: explainSmtpError(error).step }).toEqual({ final, step });
    expect(host.received).toEqual([]);
  });

  test("a login is the user and password of the URL, decoded", async () => {
    const host = await smtp({ login: LOGIN });
    await mailerTo([urlOf(host, "smtp", `primer:${encodeURIComponent(LOGIN.pass)}@`)]).send(message());
    expect(host.received[0]?.user).toBe("primer");
  });

  test("a server that knows no login gets no mail where there is one to be made", async () => {
    const host = await smtp();
    expect(await errorOf(mailerTo([urlOf(host, "smtp", "primer:secret@")]).send(message()))).toBeDefined();
    expect(host.received).toEqual([]);
  });

  test("nobody listens; a host that there is not", async () => {
    const down = await errorOf(mailerTo([`smtp://localhost:${await freePort()}`]).send(message()));
    expect(explainSmtpError(down)).toMatchObject({ step: "connect", isUnreachable: true });
    const nowhere = await errorOf(mailerTo(["smtp://nowhere.invalid"]).send(message()));
    expect(explainSmtpError(nowhere)).toMatchObject({ isUnreachable: true });
  });
});

// While one server does not take mails the next one does, and one that is down is not asked again and again.
describe("several servers", () => {
  test("the first takes them while it can", async () => {
    const [first, second] = [await smtp(), await smtp()];
    expect(await mailerTo([urlOf(first), urlOf(second)]).send(message())).toMatchObject({ provider: "smtp" });
    expect([first.received.length, second.received.length]).toEqual([1, 0]);
  });

  const FIRST: readonly [name: string, start: () => Promise<{ port: number }>][] = [
    ["is down", async () => ({ port: await freePort() })],
    ["stalls", () => faulty("EHLO", "stall")],
    ["refuses the login", () => smtp({ login: { user: "primer", pass: "another" } })],
    ["refuses the sender", () => smtp({ onMailFrom: () => ({ responseCode: 553, message: "no" }) })],
    ["has no time", () => smtp({ onMessage: () => ({ responseCode: 451, message: "later" }) })],
  ];
  test.each(FIRST)("the first %s: the second one gets the mail", async (_name, start) => {
    const [first, second] = [await start(), await smtp()];
    const sent = await mailerTo([urlOf(first, "smtp", "primer:wrong@"), urlOf(second)]).send(message());
    expect(sent).toMatchObject({ provider: "smtp_2" });
    expect(second.received).toHaveLength(1);
  });

  test("a recipient that the first refuses for good is not tried at the second", async () => {
    const first = await smtp({ onRecipient: () => ({ responseCode: 550, message: "5.1.1 unknown" }) });
    const second = await smtp();
    expect(isRefusalForGood(await errorOf(mailerTo([urlOf(first), urlOf(second)]).send(message())))).toBe(true);
    expect(second.connections()).toBe(0);
  });

  test("one that fails five times in a row is left alone, and shows so; refused recipients do not count", async () => {
    const [first, second] = [await faulty("EHLO", "hang_up"), await smtp({ onRecipient: rejectBob })];
    const mailer = mailerTo([urlOf(first), urlOf(second)]);
    for (let count = 0; count < 8; count++) await mailer.send(message());
    const [broken, working] = mailer.providers;
    expect(broken?.breaker.status()).toMatchObject({ state: "open" });
    const asked = first.connections();
    for (let count = 0; count < 7; count++) await errorOf(mailer.send(message({ to: "bob@example.org" })));
    expect(first.connections()).toBe(asked);
    expect(working?.breaker.status()).toMatchObject({ state: "closed", failureCount: 0 });
    expect(second.received).toHaveLength(8);
  });
});

const rejectBob = (address: string) =>
  address.startsWith("bob") ? { responseCode: 550, message: "5.1.1 unknown" } : undefined;

test("connections to one server are bounded, kept open and used again", async () => {
  const host = await smtp();
  const mailer = mailerTo([urlOf(host)], { PRIMER_MAIL__CONNECTIONS: "2" }, { step: 5000, whole: 10_000 });
  await Promise.all(Array.from({ length: 20 }, () => mailer.send(message())));
  expect(host.received).toHaveLength(20);
  expect({ connections: host.connections(), most: host.mostAtOnce() }).toEqual({ connections: 2, most: 2 });
});

// Nothing that users choose becomes a header or a recipient of its own.
describe("names and addresses", () => {
  const CASES: readonly [name: string, more: Partial<Message>, to: string][] = [
    ["a line break in the subject", { subject: "Hello\r\nBcc: eve@example.org\r\n\r\n<p>" }, "ada@example.org"],
    [
      "a line break in the sender's name",
      { from: { name: "A\r\nBcc: eve@example.org", address: "login@example.org" } },
      "ada@example.org",
    ],
    [
      "a comma and quotes in the sender's name",
      { from: { name: 'Example, "Inc" <eve@example.org>', address: "login@example.org" } },
      "ada@example.org",
    ],
    ["a line break in the address", { to: "ada@example.org\r\nRCPT TO:<eve@example.org>" }, ""],
    ["a comma in the address", { to: "ada@example.org,eve@example.org" }, ""],
    ["an address that reads like two", { to: "ada@example.org> <eve@example.org" }, ""],
  ];
  test.each(CASES)("%s", async (_name, more, to) => {
    const host = await smtp();
    await errorOf(mailerTo([urlOf(host)]).send(message(more)));
    const recipients = host.received.flatMap((received) => received.to);
    expect(recipients).toEqual(to === "" ? [] : [to]);
    for (const { mail, raw } of host.received) {
      expect(mail.headers.has("bcc")).toBe(false);
      expect(raw.split("\r\n\r\n", 1)[0]).not.toMatch(/^(bcc|cc):/im);
      expect(mail.from?.value).toHaveLength(1);
      expect(mail.from?.value[0]?.address).toBe("login@example.org");
    }
  });

  // A domain has a form in ASCII; what stands before it has none.
  const LETTERS: readonly [address: string, utf8: boolean, header: string][] = [
    ["ada@example.org", false, "To: ada@example.org"],
    ["jörg@example.org", true, "To: jörg@example.org"],
    ["ada@bücher.example", false, "To: ada@xn--bcher-kva.example"],
  ];
  test.each(LETTERS)("%s is asked for with SMTPUTF8: %s", async (to, utf8, header) => {
    const host = await smtp();
    await mailerTo([urlOf(host)]).send(
      message({ to, subject: "Grüße ✓", from: { name: "Bücher", address: "login@example.org" } }),
    );
    const [received] = host.received;
    expect({ to: received?.to, utf8: received?.utf8 }).toEqual({ to: [to], utf8 });
    expect(received?.raw.split("\r\n")).toContain(header);
    expect(received?.mail).toMatchObject({ subject: "Grüße ✓" });
    expect(received?.mail.from?.value[0]?.name).toBe("Bücher");
  });
});
