import { createHash } from "node:crypto";
import { type FileHandle, open, rename } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createZstdDecompress } from "node:zlib";
import { Decrypter, Encrypter } from "age-encryption";
import { codeOf, failed, misused, OperatorError, textOf } from "../../config/errors.ts";
import type { RandomBytes } from "../../config/secrets.ts";
import { syncFolder } from "../files.ts";
import { withTemporary } from "../left-overs.ts";
import { passphraseIdentity, passphraseRecipient } from "./passphrase.ts";

/**
 * The file of a backup: lines of text, each compressed (zstd) by itself, all of it encrypted in the age format with a
 * passphrase. `age -d FILE | zstd -d` shows the lines. Every 64 KiB are authenticated with their place and whether they
 * are the last, so that a changed, moved or missing byte is seen.
 */
export type PutLine = (line: string) => Promise<void>;

/** What the name of a backup goes on with until it is whole. */
export const PARTIAL = ".partial";

export interface WrittenFile {
  readonly bytes: number;
  /** Of the file as it lies there. */
  readonly sha256: string;
}

/**
 * Writes a backup: beside its place, brought to the disk, then renamed, readable to its owner alone. What goes wrong
 * leaves no FILE and no part of it.
 *
 * @throws OperatorError (exit 1) where the disk is full or the folder cannot be written
 */
export async function writeArchive(
  path: string,
  passphrase: string,
  random: RandomBytes,
  produce: (put: PutLine) => Promise<void>,
): Promise<WrittenFile> {
  return withTemporary(`${resolve(path)}${PARTIAL}`, async (partial) => {
    let file: FileHandle | undefined;
    try {
      file = await open(partial, "wx", 0o600);
      const written = await encryptInto(file, passphrase, random, produce);
      await file.sync();
      await file.close();
      await rename(partial, path);
      syncFolder(dirname(resolve(path)));
      return written;
    } catch (error) {
      await file?.close().catch(() => {});
      if (error instanceof OperatorError || codeOf(error)?.startsWith("E") !== true) throw error;
      throw failed(
        `${path} cannot be written: ${codeOf(error) === "ENOSPC" ? "the disk is full" : textOf(error)}`,
        "Free some space or choose another place; nothing was left there.",
        error,
      );
    }
  });
}

async function encryptInto(
  file: FileHandle,
  passphrase: string,
  random: RandomBytes,
  produce: (put: PutLine) => Promise<void>,
): Promise<WrittenFile> {
  const lines = new TransformStream<Uint8Array, Uint8Array>();
  const writer = lines.writable.getWriter();
  const encrypter = new Encrypter();
  encrypter.addRecipient(passphraseRecipient(passphrase, random));
  const encrypted = await encrypter.encrypt(lines.readable);
  const hash = createHash("sha256");
  let bytes = 0;
  const producing = produce(async (line) => writer.write(await Bun.zstdCompress(`${line}\n`))).then(
    () => writer.close(),
    (error) => writer.abort(error).then(() => Promise.reject(error)),
  );
  const writing = (async () => {
    for await (const chunk of encrypted) {
      hash.update(chunk);
      bytes += chunk.byteLength;
      await file.writeFile(chunk);
    }
  })();
  // Whichever fails first says why; the other one ends because of it.
  await Promise.all([producing, writing]).finally(() => Promise.allSettled([producing, writing]));
  return { bytes, sha256: hash.digest("hex") };
}

/**
 * The lines of a backup, one after the other. A line is handed out only once it was authenticated; whether the file is
 * whole is known at the end, so whoever acts on it reads it to its end first.
 *
 * @throws OperatorError exit 2 where the passphrase does not fit or there is no such file, exit 1 where a byte differs
 */
export async function* readArchive(path: string, passphrase: string): AsyncGenerator<string> {
  const decrypter = new Decrypter();
  decrypter.addIdentity(passphraseIdentity(passphrase));
  const file = Bun.file(path);
  if (!(await file.exists())) throw misused(`There is no file ${path}.`);
  const decrypted = await decrypter.decrypt(file.stream()).catch((error) => {
    throw misused(
      `${path} does not open with this passphrase, or is no whole backup (${textOf(error)}).`,
      "Give the file with the passphrase that it was made with: --passphrase-file, or backup.key_file.",
      error,
    );
  });
  const text = createZstdDecompress();
  // biome-ignore lint/suspicious/noExplicitAny: two declarations of one and the same web stream
  const flowing = pipeline(Readable.fromWeb(decrypted as any), text);
  flowing.catch(() => {}); // the loop below meets the same error
  try {
    let rest = "";
    text.setEncoding("utf8");
    for await (const chunk of text) {
      if (!chunk.includes("\n")) {
        rest += chunk;
        continue;
      }
      const lines = (rest + chunk).split("\n");
      rest = lines.pop() ?? "";
      yield* lines;
    }
    await flowing;
    if (rest !== "") throw new Error("its last line is not whole");
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    throw failed(
      `${path} is damaged: a part of it is not as it was written, or is missing (${textOf(error)}).`,
      "Nothing was changed. Use another copy of this backup, or another backup.",
      error,
    );
  }
}
