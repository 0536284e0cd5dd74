import { X509Certificate } from "node:crypto";
import { statSync } from "node:fs";
import { isIP } from "node:net";
import { resolve } from "node:path";
import { rootCertificates } from "node:tls";
import { type Certificate, namesOf, readCertificate } from "../config/certificate.ts";
import { isLoopback } from "../config/load.ts";
import type { Settings } from "../config/schema.ts";
import { broken, type Finding, ok, warning } from "./findings.ts";

const CHECK = "TLS";
/** A certificate that ends sooner should have been renewed: those that renew themselves do it a month ahead. */
const EXPIRES_SOON_DAYS = 21;
const DAY_MS = 86_400_000;

/**
 * What stands between clients and primer: a certificate of its own, a proxy that ends TLS, or nothing.
 *
 * @param home what relative paths of certificates start from
 * @throws OperatorError where the files of the certificate are of no use
 */
export function checkTls(server: Settings["server"], home: string, now: Date): Finding[] {
  const certificate = readCertificate(server, home);
  if (!certificate) return [checkProxy(server)];
  const [own] = certificate.chain;
  const faults = [
    checkNames(own, server.public_url),
    checkValidity(own, now),
    checkChain(certificate),
    checkKeyFile(resolve(home, server.tls_key)),
  ].filter((finding) => finding !== undefined);
  if (faults.length > 0) return faults;
  return [ok(CHECK, `served by primer for ${namesOf(own).join(", ")}, until ${dayOf(own.validToDate)}`)];
}

function checkProxy({ public_url, trusted_proxies }: Settings["server"]): Finding {
  if (!public_url.startsWith("https://")) return ok(CHECK, "none: clients speak plain http");
  if (trusted_proxies.length > 0) return ok(CHECK, `ended by the proxy at ${trusted_proxies.join(", ")}`);
  return warning(
    CHECK,
    `${public_url} is https, and neither is there a certificate nor is a proxy trusted`,
    "List the proxy that ends TLS in server.trusted_proxies (else every client seems to have its address), or set server.tls_cert and server.tls_key.",
  );
}

function checkNames(own: X509Certificate, publicUrl: string): Finding | undefined {
  const host = new URL(publicUrl).hostname.replace(/^\[|\]$/g, "");
  const fits = isIP(host) ? own.checkIP(host) : own.checkHost(host);
  if (fits !== undefined) return undefined;
  const names = namesOf(own).join(", ") || "nothing";
  return broken(
    CHECK,
    `The certificate is for ${names}, and not for ${host} of the public URL`,
    "Get one for that name, or mend server.public_url: clients refuse the connection.",
  );
}

const dayOf = (date: Date) => date.toISOString().slice(0, 10);

function checkValidity(own: X509Certificate, now: Date): Finding | undefined {
  const renew = "Renew it; primer takes the new files by itself within seconds.";
  if (own.validFromDate > now) {
    const from = own.validFromDate.toISOString();
    return broken(CHECK, `The certificate is not valid before ${from}`, "Is this machine's clock right?");
  }
  const days = Math.floor((own.validToDate.getTime() - now.getTime()) / DAY_MS);
  if (own.validToDate <= now) return broken(CHECK, `The certificate expired on ${dayOf(own.validToDate)}`, renew);
  return days < EXPIRES_SOON_DAYS ? warning(CHECK, `The certificate expires in ${days} days`, renew) : undefined;
}

/** Each certificate must have signed the one before it; the last one ends the chain, or a CA that everybody knows does. */
function checkChain({ chain }: Certificate): Finding | undefined {
  const last = chain.at(-1) ?? chain[0];
  const broke = chain.findIndex((certificate, index) => {
    const issuer = chain[index + 1];
    return issuer !== undefined && !isSignedBy(certificate, issuer);
  });
  if (broke >= 0) {
    return broken(
      CHECK,
      `Certificate ${broke + 2} in the file has not signed certificate ${broke + 1}`,
      "Put them in order: the server's own first, then each one's issuer (fullchain.pem of most tools).",
    );
  }
  if (isSignedBy(last, last) || isSignedByKnownCa(last)) return undefined;
  return warning(
    CHECK,
    `The chain ends at a certificate of ${last.issuer.replaceAll("\n", ", ")}, which is no public CA`,
    "Append the certificates between it and the CA; where it is a CA of your own, clients have to know it.",
  );
}

const isSignedBy = (certificate: X509Certificate, issuer: X509Certificate) =>
  certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);

const isSignedByKnownCa = (certificate: X509Certificate) =>
  rootCertificates.some((pem) => isSignedBy(certificate, new X509Certificate(pem)));

function checkKeyFile(path: string): Finding | undefined {
  if ((statSync(path).mode & 0o077) === 0) return undefined;
  return warning(CHECK, `${path} can be read by others`, `chmod 600 ${path}`);
}

/** A database on another machine gets its queries, and password hashes with them, in plain text unless TLS is asked for. */
export function checkDatabaseTls({ url, tls_ca }: Settings["database"]): Finding[] {
  if (url === "") return [];
  const { hostname, searchParams } = new URL(url);
  const isPlain = tls_ca === "" && [null, "disable"].includes(searchParams.get("sslmode"));
  if (!isPlain || isLoopback(hostname)) return [];
  return [
    warning(
      "database TLS",
      `The connection to ${hostname} is plain text`,
      "Add ?sslmode=verify-full to DATABASE_URL, and database.tls_ca where the CA is your own.",
    ),
  ];
}
