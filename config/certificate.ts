import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { misused, type OperatorError, textOf } from "./errors.ts";
import type { Settings } from "./schema.ts";

/** The certificate that primer serves https with, and its key, as they were in their files. */
export interface Certificate {
  /** In PEM: the server's own certificate first, then those between it and the CA. */
  readonly cert: string;
  readonly key: string;
  readonly chain: readonly [X509Certificate, ...X509Certificate[]];
}

type CertificateFiles = Pick<Settings["server"], "tls_cert" | "tls_key">;

/**
 * Reads the certificate and the key that the settings name; undefined where they name none.
 *
 * @param home what relative paths start from
 * @throws OperatorError (exit 2) naming the setting, the file and what to do, where one cannot be read or they do not
 *   belong together. Whether the certificate is still valid is not looked at: an old one is better than none.
 */
export function readCertificate(server: CertificateFiles, home: string): Certificate | undefined {
  if (server.tls_cert === "") return undefined;
  const certPath = resolve(home, server.tls_cert);
  const keyPath = resolve(home, server.tls_key);
  const cert = readPem("server.tls_cert", certPath);
  const key = readPem("server.tls_key", keyPath);
  const chain = parseChain(certPath, cert);
  if (!chain[0].checkPrivateKey(parseKey(keyPath, key))) {
    throw misused(
      `server.tls_key: ${keyPath} is not the key of the certificate in ${certPath}.`,
      "Name the two files that were made together; in the certificate's file the server's own one stands first.",
    );
  }
  return { cert, key, chain };
}

/** The text of a file that a setting names. @throws OperatorError (exit 2) naming the setting and the file */
export function readPem(setting: string, path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw misused(
      `${setting}: ${path} cannot be read: ${textOf(error)}`,
      `See that ${setting} names the file, and that the user primer runs as may read it.`,
      error,
    );
  }
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;

/** The certificates in a PEM text, in their order. Throws where one cannot be read. */
export const certificatesIn = (pem: string): X509Certificate[] =>
  (pem.match(PEM_CERTIFICATE) ?? []).map((text) => new X509Certificate(text));

function parseChain(path: string, pem: string): Certificate["chain"] {
  const [first, ...rest] = tryTo(
    () => certificatesIn(pem),
    (error) => notPem("server.tls_cert", path, "certificates", error),
  );
  if (!first) throw notPem("server.tls_cert", path, "certificates");
  return [first, ...rest];
}

const parseKey = (path: string, pem: string): KeyObject =>
  tryTo(
    () => createPrivateKey(pem),
    (error) => notPem("server.tls_key", path, "a private key without a passphrase", error),
  );

const notPem = (setting: string, path: string, what: string, cause?: unknown): OperatorError =>
  misused(`${setting}: ${path} does not hold ${what} in PEM.`, "Such a file has lines like -----BEGIN …-----.", cause);

function tryTo<T>(work: () => T, explain: (error: unknown) => OperatorError): T {
  try {
    return work();
  } catch (error) {
    throw explain(error);
  }
}

/** The names that a certificate is good for, such as "login.example.org" or "192.0.2.7". */
export const namesOf = (certificate: X509Certificate): string[] =>
  (certificate.subjectAltName ?? "").split(", ").flatMap((name) => /^(?:DNS|IP Address):(.+)$/.exec(name)?.[1] ?? []);
