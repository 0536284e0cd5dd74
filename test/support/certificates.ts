/** Certificates for tests, made here: CAs of our own, and what they issue. */
import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { isIP } from "node:net";

/** A certificate and its key, in PEM. */
export interface Issued {
  readonly cert: string;
  readonly key: string;
}

export interface Authority {
  readonly cert: string;
  /**
   * A server's certificate for these host names and addresses.
   *
   * @param validFor days from now; negative where it has expired
   */
  issue(names: readonly string[], validFor?: number): Issued;
  /** An authority whose certificate this one has signed. */
  intermediate(name: string): Authority;
}

const DAY_MS = 86_400_000;

function tlv(tag: number, ...content: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(content);
  const { length } = body;
  const size = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255];
  return Buffer.concat([Buffer.from([tag, ...size]), body]);
}

const sequence = (...content: readonly Uint8Array[]) => tlv(0x30, ...content);
const octets = (content: Uint8Array) => tlv(0x04, content);
const bits = (content: Uint8Array) => tlv(0x03, Buffer.from([0]), content);
const yes = tlv(0x01, Buffer.from([0xff]));

function oid(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split(".").map(Number);
  const groups = rest.flatMap((value) => {
    const digits = [value & 127];
    for (let left = value >> 7; left > 0; left >>= 7) digits.unshift((left & 127) | 128);
    return digits;
  });
  return tlv(0x06, Buffer.from([first * 40 + second, ...groups]));
}

const time = (date: Date) =>
  tlv(
    0x17,
    Buffer.from(
      `${date
        .toISOString()
        .replace(/[-:T]|\.\d+/g, "")
        .slice(2)}`,
    ),
  );
const name = (text: string) => sequence(tlv(0x31, sequence(oid("2.5.4.3"), tlv(0x0c, Buffer.from(text)))));
const extension = (id: string, value: Buffer, critical = false) =>
  sequence(oid(id), ...(critical ? [yes] : []), octets(value));

const ECDSA_SHA256 = sequence(oid("1.2.840.10045.4.3.2"));

const addressBytes = (address: string) =>
  isIP(address) === 4
    ? Buffer.from(address.split(".").map(Number))
    : Buffer.concat([Buffer.alloc(15), Buffer.from([1])]); // ::1, the only one that tests use

const alternativeNames = (names: readonly string[]) =>
  sequence(...names.map((entry) => (isIP(entry) ? tlv(0x87, addressBytes(entry)) : tlv(0x82, Buffer.from(entry)))));

const pem = (der: Buffer) =>
  `-----BEGIN CERTIFICATE-----\n${der.toString("base64").replace(/.{64}(?=.)/g, "$&\n")}\n-----END CERTIFICATE-----\n`;

interface Request {
  readonly subject: string;
  readonly publicKey: KeyObject;
  readonly issuer: string;
  readonly issuerKey: KeyObject;
  readonly extensions: readonly Buffer[];
  readonly validFor: number;
}

/** RFC 5280, section 4.1. */
function certificate({ subject, publicKey, issuer, issuerKey, extensions, validFor }: Request): string {
  const spki = publicKey.export({ type: "spki", format: "der" });
  const serial = createHash("sha256").update(spki).digest().subarray(0, 16);
  serial[0] = 1;
  const until = Date.now() + validFor * DAY_MS;
  const body = sequence(
    tlv(0xa0, tlv(0x02, Buffer.from([2]))),
    tlv(0x02, serial),
    ECDSA_SHA256,
    name(issuer),
    sequence(time(new Date(Math.min(Date.now(), until) - 30 * DAY_MS)), time(new Date(until))),
    name(subject),
    spki,
    tlv(0xa3, sequence(...extensions)),
  );
  return pem(sequence(body, ECDSA_SHA256, bits(sign("sha256", body, issuerKey))));
}

const newKeys = () => generateKeyPairSync("ec", { namedCurve: "P-256" });
const IS_CA = extension("2.5.29.19", sequence(yes), true);
const IS_NO_CA = extension("2.5.29.19", sequence(), true);

/** A CA that has signed itself, or that another one has signed. */
export function certificateAuthority(subject = "Test CA", signedBy?: { name: string; key: KeyObject }): Authority {
  const { publicKey, privateKey } = newKeys();
  const issuer = signedBy ?? { name: subject, key: privateKey };
  const signing = { issuer: issuer.name, issuerKey: issuer.key };
  return {
    cert: certificate({ subject, publicKey, ...signing, extensions: [IS_CA], validFor: 365 }),
    issue(names, validFor = 90) {
      const own = newKeys();
      const cert = certificate({
        subject: names[0] ?? "",
        publicKey: own.publicKey,
        issuer: subject,
        issuerKey: privateKey,
        extensions: [IS_NO_CA, extension("2.5.29.17", alternativeNames(names))],
        validFor,
      });
      return { cert, key: own.privateKey.export({ type: "pkcs8", format: "pem" }).toString() };
    },
    intermediate: (intermediateName) => certificateAuthority(intermediateName, { name: subject, key: privateKey }),
  };
}
