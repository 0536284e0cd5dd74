import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { connect as connectPlain } from "node:net";
import { join } from "node:path";
import { connect, type TLSSocket } from "node:tls";
import { checkDatabaseTls, checkTls } from "../../cli/check-tls.ts";
import { readCertificate } from "../../config/certificate.ts";
import { OperatorError } from "../../config/errors.ts";
import { loadSettings } from "../../config/load.ts";
import type { Settings } from "../../config/schema.ts";
import { certificateAuthority, type Issued } from "../support/certificates.ts";
import { runPrimer } from "../support/server.ts";
import { ADMIN, jsonOf, makeFolder, openScratch } from "./support/home.ts";
import { type Serving, serve, until } from "./support/serve.ts";

const scratch = openScratch();
afterAll(() => scratch.remove());

const ca = certificateAuthority();
const NAMES = ["localhost", "127.0.0.1"];
const FILES = { PRIMER_SERVER__TLS_CERT: "tls/cert.pem", PRIMER_SERVER__TLS_KEY: "tls/key.pem" };

/** Puts a certificate where {@link FILES} look for it. */
function install(home: string, { cert, key }: Issued): void {
  writeFileSync(join(home, "tls/cert.pem"), cert);
  writeFileSync(join(home, "tls/key.pem"), key, { mode: 0o600 });
}

function installNew(home: string, issued: Issued): void {
  makeFolder(join(home, "tls"));
  install(home, issued);
}

async function homeWith(issued: Issued): Promise<string> {
  const home = await scratch.home();
  installNew(home, issued);
  return home;
}

let serving: Serving | undefined;
afterEach(async () => {
  await serving?.stop();
  serving = undefined;
});

async function serveWith(issued: Issued, environment: Record<string, string> = {}): Promise<Serving> {
  serving = await serve(await homeWith(issued), { environment: { ...FILES, ...environment }, ca: ca.cert });
  return serving;
}

const portOf = (url: string) => Number(new URL(url).port);

/** A connection over TLS that believes our CA alone; rejects where it is refused. */
function handshake(url: string, versions: { maxVersion?: "TLSv1.2" | "TLSv1.3" } = {}): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const options = { host: "127.0.0.1", port: portOf(url), ca: ca.cert, ...versions };
    const socket = connect(options, () => resolve(socket));
    socket.once("error", reject);
  });
}

/** The serial number of the certificate that a new connection is shown. */
async function shownSerial(url: string): Promise<string> {
  const socket = await handshake(url);
  const serial = socket.getPeerCertificate().serialNumber;
  socket.destroy();
  return serial;
}

const serialOf = ({ cert }: Issued) => new X509Certificate(cert).serialNumber;

describe("serve with a certificate", () => {
  test("answers over https, says so, and its public URL is https", async () => {
    const { url, untilLogged } = await serveWith(ca.issue(NAMES));
    expect((await untilLogged("server.started")).url).toBe(url);
    const answer = await fetch(`${url}/livez`, { tls: { ca: ca.cert } });
    expect(answer.status).toBe(200);
    expect(answer.headers.get("strict-transport-security")).toContain("max-age=31536000");
    const login = await fetch(`${url}/api/v1/auth/login`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(ADMIN),
      tls: { ca: ca.cert },
    });
    // biome-ignore lint/suspicious/noExplicitAny: the claims of any token
    const { access_token } = (await login.json()) as any;
    const claims = JSON.parse(Buffer.from(access_token.split(".")[1], "base64url").toString());
    expect(claims.iss).toBe(url);
  });

  // Nobody is answered in plain text on the port of https.
  test("plain http on its port gets no answer", async () => {
    const { url } = await serveWith(ca.issue(NAMES));
    const received = await new Promise<string>((resolve) => {
      let text = "";
      const socket = connectPlain(portOf(url), "127.0.0.1", () => {
        socket.write("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
      });
      socket.on("data", (bytes) => {
        text += bytes.toString("latin1");
      });
      socket.on("close", () => resolve(text));
      socket.on("error", () => resolve(text));
    });
    expect(received).not.toContain("HTTP/1.1 200");
  });

  // TLS 1.2 is spoken only where somebody has asked for it.
  test("a client of TLS 1.2 is refused by default", async () => {
    const { url } = await serveWith(ca.issue(NAMES));
    await expect(handshake(url, { maxVersion: "TLSv1.2" })).rejects.toThrow();
    const socket = await handshake(url);
    expect(socket.getProtocol()).toBe("TLSv1.3");
    socket.destroy();
  });

  test('and accepted with server.tls_min_version = "1.2", while others still get 1.3', async () => {
    const { url } = await serveWith(ca.issue(NAMES), { PRIMER_SERVER__TLS_MIN_VERSION: "1.2" });
    for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
      const socket = await handshake(url, { maxVersion });
      expect(socket.getProtocol()).toBe(maxVersion);
      socket.destroy();
    }
  });

  // Sharing a port would send half of the logins to the wrong installation.
  test("a port that another primer has is refused", async () => {
    const { url } = await serveWith(ca.issue(NAMES));
    const other = await homeWith(ca.issue(NAMES));
    const ran = await runPrimer(["serve", "--dir", other, "--port", String(portOf(url))], { environment: FILES });
    expect(ran.exitCode).toBe(1);
  });
});

const BODY = JSON.stringify({ refresh_token: "none" });

/** A request whose body is sent up to its half; `finish` sends the rest and answers what comes back. */
async function halfRequest(url: string): Promise<{ finish(): Promise<string> }> {
  const socket = await handshake(url);
  const head = `POST /api/v1/auth/refresh HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${BODY.length}\r\n\r\n`;
  socket.write(head + BODY.slice(0, 10));
  return {
    finish: () =>
      new Promise((resolve, reject) => {
        socket.once("data", (bytes) => resolve(bytes.toString("latin1")));
        socket.once("error", reject);
        socket.once("close", () => reject(new Error("The connection was closed")));
        socket.write(BODY.slice(10));
      }),
  };
}

describe("a certificate that changes", () => {
  // A certificate is renewed while everything goes on: what was under way is answered, and a stream is not cut.
  test("new connections get the new one; a request and a stream under way go on", async () => {
    const first = ca.issue(NAMES);
    const second = ca.issue(NAMES);
    const { url, home, untilLogged } = await serveWith(first);
    expect(await shownSerial(url)).toBe(serialOf(first));

    const request = await halfRequest(url);
    const stream = await fetch(`${url}/api/v1/revocations/stream`, { tls: { ca: ca.cert } });
    const events = stream.body?.getReader();
    await events?.read();
    install(home, second);
    await untilLogged("certificate.renewed");
    await until("the new certificate alone", async () => (await shownSerial(url)) === serialOf(second));

    expect(await request.finish()).toStartWith("HTTP/1.1 401");
    const next = await events?.read();
    expect(next?.done).toBe(false);
    await events?.cancel();
  });

  // Whoever connects in the very moment of a renewal is served at the second try at the latest.
  test("under steady new connections, at each SIGHUP", async () => {
    const { url, home, untilLogged, signal } = await serveWith(ca.issue(NAMES));
    let [answered, done] = [0, false];
    const ask = () => fetch(`${url}/livez`, { tls: { ca: ca.cert }, headers: { connection: "close" } });
    const steady = Array.from({ length: 4 }, async () => {
      while (!done) {
        const { status } = await ask().catch(ask);
        if (status === 200) answered++;
        else return;
      }
    });
    for (let round = 0; round < 3; round++) {
      const [next, before] = [ca.issue(NAMES), answered];
      install(home, next);
      signal("SIGHUP");
      await untilLogged("certificate.renewed", round);
      // A connection that is made in the moment when the old listener closes is reset, and has to be made again.
      const isNew = () =>
        shownSerial(url).then(
          (serial) => serial === serialOf(next),
          () => false,
        );
      await until("the new certificate alone", isNew);
      await until("further answers", () => answered > before + 20);
    }
    done = true;
    await Promise.all(steady);
  });

  // A broken file must not take the service down: the old certificate goes on, and the log says why.
  test("files of no use leave the old one, and later good ones are taken", async () => {
    const first = ca.issue(NAMES);
    const { url, home, untilLogged, log, signal } = await serveWith(first);
    const broken: Issued[] = [
      { cert: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key: first.key },
      { cert: ca.issue(NAMES).cert, key: first.key },
      { cert: "", key: first.key },
    ];
    for (const [round, issued] of broken.entries()) {
      install(home, issued);
      signal("SIGHUP");
      await untilLogged("certificate.refused", round);
      expect(await shownSerial(url)).toBe(serialOf(first));
    }
    expect(log().filter(({ event }) => event === "certificate.refused")).toHaveLength(broken.length);
    const good = ca.issue(NAMES);
    install(home, good);
    await untilLogged("certificate.renewed");
    await until("the new certificate alone", async () => (await shownSerial(url)) === serialOf(good));
  });

  // What was decided at the start stays until the next one, and so does all that follows from it.
  test("naming a certificate in primer.toml counts from the next start on", async () => {
    const home = await homeWith(ca.issue(NAMES));
    serving = await serve(home);
    const path = join(home, "primer.toml");
    const named = readFileSync(path, "utf8")
      .replace(/^# tls_cert = .*$/m, 'tls_cert = "tls/cert.pem"')
      .replace(/^# tls_key = .*$/m, 'tls_key = "tls/key.pem"');
    writeFileSync(path, named);
    serving.signal("SIGHUP");
    const line = await serving.untilLogged("settings.reloaded");
    expect(line.after_restart).toEqual(["server.tls_cert", "server.tls_key"]);
    const answer = await fetch(`${serving.url}/livez`);
    expect(answer.status).toBe(200);
    expect(answer.headers.get("strict-transport-security")).toBeNull();
  });

  test("SIGTERM waits for what is under way on an old certificate too", async () => {
    const running = await serveWith(ca.issue(NAMES));
    const { url, home, untilLogged, signal, exited } = running;
    const request = await halfRequest(url);
    install(home, ca.issue(NAMES));
    signal("SIGHUP");
    await untilLogged("certificate.renewed");
    signal("SIGTERM");
    await until("the listener to be closed", () =>
      handshake(url).then(
        (socket) => void socket.destroy(),
        () => true,
      ),
    );
    expect(await request.finish()).toStartWith("HTTP/1.1 401");
    expect(await exited).toBe(0);
  });
});

/** What {@link readCertificate} refuses, as its exit code and the setting that it names first. */
function refusal(home: string): { exitCode: number; setting: string } | undefined {
  try {
    readCertificate({ tls_cert: "tls/cert.pem", tls_key: "tls/key.pem" }, home);
    return undefined;
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    return { exitCode: error.exitCode, setting: error.message.split(":")[0] ?? "" };
  }
}

describe("files that cannot be used", () => {
  const [own, other] = [ca.issue(NAMES), ca.issue(NAMES)];
  const locked = createPrivateKey(own.key).export({
    type: "pkcs8",
    format: "pem",
    cipher: "aes-256-cbc",
    passphrase: "x",
  });
  const REFUSED: readonly (readonly [name: string, files: Partial<Issued>, setting: string])[] = [
    ["a certificate that is none", { cert: "hello" }, "server.tls_cert"],
    ["a certificate with a line missing", { cert: own.cert.replace(/\n.{64}\n/, "\n") }, "server.tls_cert"],
    ["an empty key", { key: "" }, "server.tls_key"],
    ["a key with a passphrase", { key: locked.toString() }, "server.tls_key"],
    ["the key of another certificate", { key: other.key }, "server.tls_key"],
    ["certificate and key in each other's place", { cert: own.key, key: own.cert }, "server.tls_cert"],
    ["the issuer's certificate first", { cert: ca.cert + own.cert }, "server.tls_key"],
  ];
  // What primer cannot serve with is refused, and the setting is named.
  test.each(REFUSED)("%s: exit 2", async (_name, files, setting) => {
    const home = scratch.path("refused");
    installNew(home, { ...own, ...files });
    expect(refusal(home)).toEqual({ exitCode: 2, setting });
  });

  test.each([["serve"], ["config check"]])("a file that is not there: %s ends with exit 2", async (command) => {
    const words = [...command.split(" "), "--json", "--dir", await scratch.home()];
    const ran = await runPrimer(words, { environment: FILES });
    expect(ran.exitCode).toBe(2);
    expect(jsonOf(ran).error.message).toStartWith("server.tls_cert");
  });
});

describe("doctor", () => {
  const { settings } = loadSettings(scratch.folder, FILES);
  const at = (url: string) => ({ public_url: url });
  const plain = { tls_cert: "", tls_key: "" };
  const intermediate = ca.intermediate("Test Intermediate");
  const withIssuers = (issued: Issued, ...issuers: string[]) => ({
    ...issued,
    cert: [issued.cert, ...issuers].join(""),
  });
  const complete = (issued: Issued) => withIssuers(issued, ca.cert);
  const good = complete(ca.issue(NAMES, 30));

  interface Case {
    readonly name: string;
    readonly issued?: Issued;
    readonly server?: Partial<Settings["server"]>;
    readonly keyMode?: number;
    readonly daysLater?: number;
    readonly state: "ok" | "warning" | "failed";
  }
  const CASES: readonly Case[] = [
    { name: "a good certificate", issued: good, state: "ok" },
    { name: "a good chain", issued: withIssuers(intermediate.issue(NAMES), intermediate.cert, ca.cert), state: "ok" },
    {
      name: "a wildcard for the public URL",
      issued: complete(ca.issue(["*.example.org"])),
      server: at("https://login.example.org"),
      state: "ok",
    },
    { name: "another name than the public URL's", issued: good, server: at("https://x.test"), state: "failed" },
    { name: "another address than the public URL's", issued: good, server: at("https://127.0.0.2"), state: "failed" },
    { name: "21 days left", issued: good, daysLater: 8.9, state: "ok" },
    { name: "not quite 21 days left", issued: good, daysLater: 9.1, state: "warning" },
    { name: "expired", issued: good, daysLater: 30.1, state: "failed" },
    { name: "not valid yet", issued: good, daysLater: -31, state: "failed" },
    { name: "no way to a CA", issued: intermediate.issue(NAMES), state: "warning" },
    { name: "a chain in the wrong order", issued: withIssuers(intermediate.issue(NAMES), ca.cert), state: "failed" },
    { name: "a key that its group can read", issued: good, keyMode: 0o640, state: "warning" },
    {
      name: "a proxy that ends TLS",
      server: { ...plain, ...at("https://login.example.org"), trusted_proxies: ["127.0.0.1"] },
      state: "ok",
    },
    { name: "https without a certificate or a proxy", server: { ...plain, ...at("https://x.test") }, state: "warning" },
    { name: "plain http", server: { ...plain, ...at("http://127.0.0.1:8080") }, state: "ok" },
  ];
  // Whatever stops clients from trusting the connection is a finding with the way to mend it.
  test.each(CASES.map((entry) => [entry.name, entry] as const))("%s", async (_name, entry) => {
    const home = scratch.path("tls");
    installNew(home, entry.issued ?? good);
    chmodSync(join(home, "tls/key.pem"), entry.keyMode ?? 0o600);
    const now = new Date(Date.now() + (entry.daysLater ?? 0) * 86_400_000);
    const findings = checkTls({ ...settings.server, ...at("https://localhost"), ...entry.server }, home, now);
    expect(findings.map(({ state }) => state)).toEqual([entry.state]);
    if (entry.state !== "ok") expect(findings[0]?.mend).toEqual(expect.stringMatching(/\S/));
  });

  // The database's answers hold password hashes: on their way to another machine nobody may read along.
  test.each([
    ["another machine", "postgres://db.example.org/primer", "", ["warning"]],
    ["another machine, TLS switched off", "postgres://192.0.2.7/primer?sslmode=disable", "", ["warning"]],
    ["another machine over TLS", "postgres://db.example.org/primer?sslmode=verify-full", "", []],
    ["another machine with a CA", "postgres://db.example.org/primer", "ca.pem", []],
    ["this machine", "postgres://127.0.0.1/primer", "", []],
    ["the embedded one", "", "", []],
  ])("the database on %s", (_name, url, tls_ca, states) => {
    const findings = checkDatabaseTls({ ...settings.database, url, tls_ca });
    expect(findings.map(({ state }) => state)).toEqual(states as (typeof findings)[number]["state"][]);
  });

  test("files of no use are a finding: exit 4", async () => {
    const home = await homeWith({ ...good, key: ca.issue(NAMES).key });
    const ran = await runPrimer(["doctor", "--json", "--dir", home], { environment: FILES });
    const failed = jsonOf(ran).findings.filter((finding: { state: string }) => finding.state === "failed");
    expect(failed.map((finding: { check: string }) => finding.check)).toEqual(["TLS"]);
    expect(ran.exitCode).toBe(4);
  });
});
