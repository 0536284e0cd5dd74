import { type Certificate, namesOf } from "../../config/certificate.ts";
import type { Log } from "../../config/log.ts";
import type { Listener } from "./listener.ts";

/** How often the files are read (milliseconds). */
const LOOK_EVERY_MS = 2000;

/** Renews the listener's certificate when its files have changed. */
export interface CertificateKeeper {
  /** Looks at once. */
  look(): void;
  /** Until when the one that is served is good. */
  validUntil(): Date;
  stop(): void;
}

/**
 * Looks every two seconds whether the files of the certificate have changed, and serves with what they hold now. Files
 * that are of no use change nothing but the log, which says so once: the certificate from before goes on.
 *
 * @param served the certificate that the listener has
 * @param read reads the files; throws where they are of no use
 */
export function keepCertificate(
  listener: Pick<Listener, "renew">,
  served: Certificate,
  read: () => Certificate | undefined,
  log: Log,
): CertificateKeeper {
  let current = served;
  let complaint = "";

  function look(): void {
    try {
      const found = read();
      complaint = "";
      if (!found || (found.cert === current.cert && found.key === current.key)) return;
      listener.renew(found);
      current = found;
      log.info("Serving with another certificate", { event: "certificate.renewed", ...describeCertificate(found) });
    } catch (error) {
      if (complaint === String(error)) return;
      complaint = String(error);
      log.error("The new certificate is of no use; the old one stays", { event: "certificate.refused", error });
    }
  }
  const timer = setInterval(look, LOOK_EVERY_MS);
  return { look, validUntil: () => current.chain[0].validToDate, stop: () => clearInterval(timer) };
}

/** What the log says of a certificate. */
const describeCertificate = ({ chain: [own] }: Certificate) => ({
  names: namesOf(own),
  valid_until: own.validToDate.toISOString(),
  fingerprint: own.fingerprint256,
});
