import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { textOf } from "../../../config/errors.ts";
import type { ThreatSource } from "../../../config/kinds.ts";
import { VERSION } from "../../../config/version.ts";
import { ThreatListError } from "./list-error.ts";
import { isSignedBy } from "./minisign.ts";

const MAX_BYTES = 64 * 1024 * 1024;
const MAX_PROOF_BYTES = 64 * 1024;
/** For the whole of an answer, from the first packet to its last (milliseconds). */
export const ANSWER_MS = 60_000;

/** How a source is read. */
export interface Reading {
  /** What a relative path starts from. */
  readonly home: string;
  /** The minisign key, in base64. */
  readonly publicKey: string;
  readonly answerMs: number;
  readonly maxBytes?: number;
}

/**
 * The bytes of a source, from the network or from a file, once its checksum or signature has proven them where the source
 * asks for one.
 *
 * @throws ThreatListError
 */
export async function readSource({ location, proof }: ThreatSource, reading: Reading): Promise<Uint8Array> {
  const bytes = await read(location, reading, reading.maxBytes ?? MAX_BYTES);
  if (proof === "none") {
    if (isUrl(location) && bytes.at(-1) !== 0x0a)
      throw new ThreatListError("DAMAGED", "it ends in the middle of a line");
    return bytes;
  }
  const beside = besideOf(location, proof === "sha256" ? ".sha256" : ".minisig");
  const shown = Buffer.from(await read(beside, reading, MAX_PROOF_BYTES)).toString("utf8");
  const isProven = proof === "sha256" ? hasSum(bytes, shown) : isSignedBy(bytes, shown, reading.publicKey);
  if (!isProven)
    throw new ThreatListError("NOT_VERIFIED", `its ${proof === "sha256" ? "checksum" : "signature"} is wrong`);
  return bytes;
}

const isUrl = (location: string) => /^https?:/.test(location);

/** A checksum or signature lies beside the list: same path, one ending more. */
function besideOf(location: string, ending: string): string {
  if (!isUrl(location)) return `${location}${ending}`;
  const url = new URL(location);
  url.pathname += ending;
  return url.href;
}

/** As `sha256sum` writes it: the digest first. */
const hasSum = (bytes: Uint8Array, shown: string): boolean =>
  /^[0-9a-f]{64}(?=\s|$)/i.exec(shown.trim())?.[0].toLowerCase() === createHash("sha256").update(bytes).digest("hex");

const read = (location: string, reading: Reading, maxBytes: number): Promise<Uint8Array> =>
  isUrl(location)
    ? fetchBytes(location, reading.answerMs, maxBytes)
    : readBytes(resolve(reading.home, location), maxBytes);

async function readBytes(path: string, maxBytes: number): Promise<Uint8Array> {
  try {
    const found = await stat(path);
    if (!found.isFile()) throw new Error(`${path} is not a file`);
    if (found.size > maxBytes) throw new ThreatListError("TOO_LARGE", `${path} is larger than ${maxBytes} bytes`);
    return await readFile(path);
  } catch (error) {
    if (error instanceof ThreatListError) throw error;
    throw new ThreatListError("UNREACHABLE", textOf(error), error);
  }
}

/** Follows no redirect: where a list comes from is what the settings say, and nothing that another server says. */
async function fetchBytes(url: string, answerMs: number, maxBytes: number): Promise<Uint8Array> {
  const signal = AbortSignal.timeout(answerMs);
  const late = new Promise<never>((_, reject) => {
    const error = new ThreatListError("DEADLINE", `it did not arrive within ${answerMs / 1000} s`);
    signal.addEventListener("abort", () => reject(error), { once: true });
  });
  late.catch(() => {});
  try {
    return await Promise.race([late, fetchBounded(url, signal, maxBytes)]);
  } catch (error) {
    if (error instanceof ThreatListError) throw error;
    throw new ThreatListError("UNREACHABLE", textOf(error), error);
  }
}

async function fetchBounded(url: string, signal: AbortSignal, maxBytes: number): Promise<Uint8Array> {
  const response = await fetch(url, {
    // Nothing is unpacked, so that a small answer cannot become a large one.
    headers: { "accept-encoding": "identity", "user-agent": `primer/${VERSION}` },
    decompress: false,
    redirect: "manual",
    signal,
  });
  if (response.status !== 200 || response.headers.has("content-encoding")) {
    await response.body?.cancel();
    const where = response.headers.get("location");
    const redirected = where ? `; it is to be had at ${new URL(where, url).origin}, which the source has to name` : "";
    throw new ThreatListError("WRONG_ANSWER", `the server answered ${response.status}${redirected}`);
  }
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength;
    if (size > maxBytes) throw new ThreatListError("TOO_LARGE", `it is larger than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
