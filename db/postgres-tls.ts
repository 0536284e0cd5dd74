import { isIP } from "node:net";
import { checkServerIdentity, type PeerCertificate } from "node:tls";
import { certificatesIn, readPem } from "../config/certificate.ts";
import { misused } from "../config/errors.ts";
import type { Settings } from "../config/schema.ts";

export interface PostgresTls {
  readonly rejectUnauthorized: true;
  readonly ca?: string;
  checkServerIdentity(name: string, certificate: PeerCertificate): Error | undefined;
}

/**
 * How a connection to PostgreSQL is encrypted; undefined where it is not. Encryption to whoever answers protects nothing,
 * so `sslmode=require` verifies too, and the modes that fall back to plain text are refused. With `database.tls_ca` the
 * connection is always TLS, and no other CA is believed.
 *
 * @throws OperatorError (exit 2) naming what is wrong with the URL's sslmode or the file of the CA
 */
export function postgresTls({ url, tls_ca }: Settings["database"]): PostgresTls | undefined {
  const { searchParams, hostname } = new URL(url);
  const mode = searchParams.get("sslmode");
  if (mode === "prefer" || mode === "allow") {
    throw misused(`sslmode=${mode} in DATABASE_URL may end in plain text.`, "Use sslmode=verify-full, or disable.");
  }
  if (tls_ca === "" && (mode === null || mode === "disable")) return undefined;
  const address = hostname.replace(/^\[|\]$/g, "");
  return {
    rejectUnauthorized: true,
    ...(tls_ca === "" ? {} : { ca: readCa(tls_ca) }),
    // The driver tells a server's name and not its address, which would be compared as "localhost".
    checkServerIdentity: (name, certificate) => checkServerIdentity(isIP(address) ? address : name, certificate),
  };
}

function readCa(path: string): string {
  const pem = readPem("database.tls_ca", path);
  let count = 0;
  try {
    count = certificatesIn(pem).length;
  } catch {
    // Counted as none.
  }
  if (count === 0)
    throw misused(`database.tls_ca: ${path} holds no certificate in PEM.`, "It is the CA's own, such as root.crt.");
  return pem;
}

const UNKNOWN_CA =
  "Its certificate is not signed by a CA that is known here. Name the file of that CA in database.tls_ca; if it is named, it is another one.";

/** What to do about a server whose certificate is refused, by the error's code. */
export const TLS_HINTS: Readonly<Record<string, string>> = {
  SELF_SIGNED_CERT_IN_CHAIN: UNKNOWN_CA,
  DEPTH_ZERO_SELF_SIGNED_CERT: UNKNOWN_CA,
  UNABLE_TO_GET_ISSUER_CERT: UNKNOWN_CA,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN_CA,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN_CA,
  CERT_SIGNATURE_FAILURE: UNKNOWN_CA,
  ERR_TLS_CERT_ALTNAME_INVALID:
    "Its certificate is for other names. Use one of those in DATABASE_URL, or give it a certificate with the name used there.",
  CERT_HAS_EXPIRED: "Its certificate has expired. Renew it, and look whether this machine's clock is right.",
  CERT_NOT_YET_VALID: "Its certificate is not valid yet. Is this machine's clock right?",
};
