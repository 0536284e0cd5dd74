import { createHash } from "node:crypto";
import { seal, unseal } from "../../../config/secrets.ts";
import type { Tx } from "../../../db/database.ts";
import { isLockTimeout } from "../../../db/errors.ts";
import { claimKey, findSealedAnswer, type KeyPlace, updateAnswer } from "../../../db/queries/idempotency.ts";
import type { Deps } from "../../deps.ts";
import { AppError, invalidField } from "../../errors.ts";
import { checkPassword, hashPassword, type StoredPassword } from "../passwords/service.ts";
import { hashSecret } from "../tokens/service.ts";

/** For how long a key stands for the request that it first came with (milliseconds). */
const KEPT_MS = 24 * 3_600_000;

/** A request that its caller may send again without its being done again. */
export interface KeyedRequest {
  readonly callerId: string;
  readonly key: string;
  /** Method and path. */
  readonly route: string;
  /** As it was sent; a `password` in it is kept as a hash only. */
  readonly body: Readonly<Record<string, unknown>>;
}

/** Wraps all that a service does in the one transaction that creates something; what it answers is what is kept. */
export type Once = <T extends object>(tx: Tx, create: () => Promise<T>) => Promise<T>;

/** For whoever sends no key. */
export const eachTime: Once = (_tx, create) => create();

/** What is sealed: what was asked, to know the same request again, and what was answered. */
interface Kept {
  readonly fingerprint: string;
  readonly password: StoredPassword | null;
  readonly answer: object;
}

type OnceDeps = Pick<Deps, "db" | "clock" | "random" | "secrets" | "settings" | "hashPool">;

/** Leaves the transaction: its work was done by another request before. */
class DoneBefore extends Error {}

/**
 * Creates something once, however often it is asked for with the same key within a day
 * (draft-ietf-httpapi-idempotency-key-header). The key is taken and the answer kept in the transaction of the creation: a
 * request that fails, or whose process dies, leaves nothing behind and can be sent again. One that comes while the first
 * is under way waits for it.
 *
 * @param create calls the service with what wraps its transaction; not called where there is an answer already
 * @returns what was answered the first time, whatever has become of it since
 * @throws AppError VALIDATION_FAILED where the key came with another request before; CONFLICT with `details.reason`
 * "in_progress" where the first one takes too long, "answer_lost" where its answer cannot be opened any more
 */
export async function createOnce<T extends object>(
  deps: OnceDeps,
  request: KeyedRequest | undefined,
  create: (once: Once) => Promise<T>,
): Promise<T> {
  if (!request) return create(eachTime);
  const place = { callerId: request.callerId, keyHash: hashSecret(request.key) };
  const earlier = await findSealedAnswer(deps.db.orm, place, deps.clock.now());
  if (earlier !== undefined) return answerAgain<T>(deps, request, place, earlier);
  const asked = { fingerprint: fingerprintOf(request), password: await passwordHashOf(deps, request) };
  try {
    return await create(async (tx, work) => {
      if (!(await claim(tx, deps, place))) throw new DoneBefore();
      const answer = await work();
      const subjectId = "id" in answer && typeof answer.id === "string" ? answer.id : null;
      await updateAnswer(tx, place, { subjectId, sealed: sealedFor(deps, place, { ...asked, answer }) });
      return answer;
    });
  } catch (error) {
    if (!(error instanceof DoneBefore)) throw error;
    const meanwhile = await findSealedAnswer(deps.db.orm, place, deps.clock.now());
    if (meanwhile === undefined) throw inProgress();
    return answerAgain<T>(deps, request, place, meanwhile);
  }
}

const inProgress = () =>
  new AppError("CONFLICT", { details: { reason: "in_progress" }, headers: { "retry-after": "1" } });

async function claim(tx: Tx, { clock }: OnceDeps, place: KeyPlace): Promise<boolean> {
  const now = clock.now();
  try {
    return await claimKey(tx, place, now, new Date(now.getTime() + KEPT_MS));
  } catch (error) {
    throw isLockTimeout(error) ? inProgress() : error;
  }
}

async function answerAgain<T>(deps: OnceDeps, request: KeyedRequest, place: KeyPlace, sealed: string): Promise<T> {
  const kept = opened(deps, place, sealed);
  const { password } = request.body;
  const isSame =
    kept.fingerprint === fingerprintOf(request) &&
    (kept.password === null || (await checkPassword(deps, String(password), kept.password)).correct);
  if (!isSame) throw invalidField("Idempotency-Key", "A key of its own: this one came with another request before");
  return kept.answer as T;
}

/** What is asked for, without the password: whoever reads this could try passwords fast. The bodies are flat. */
function fingerprintOf({ route, body: { password: _, ...body } }: KeyedRequest): string {
  const fields = Object.entries(body).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash("sha256")
    .update(JSON.stringify([route, fields]))
    .digest("base64url");
}

/** As slow to guess as the one that the account has. */
const passwordHashOf = async (deps: OnceDeps, { body: { password } }: KeyedRequest) =>
  typeof password === "string" ? hashPassword(deps, password) : null;

/** In another row it does not open. */
const contextOf = ({ callerId, keyHash }: KeyPlace) => `idempotency key ${callerId} ${keyHash}`;

const sealedFor = ({ secrets, random }: OnceDeps, place: KeyPlace, kept: Kept) =>
  seal(secrets.master, Buffer.from(JSON.stringify(kept)), contextOf(place), random.bytes);

/** A rotation of the master key does not seal anew what is gone within a day. */
function opened({ secrets }: OnceDeps, place: KeyPlace, sealed: string): Kept {
  try {
    return JSON.parse(unseal(secrets.master, sealed, contextOf(place)).toString());
  } catch (cause) {
    throw new AppError("CONFLICT", {
      internal: "A kept answer does not open",
      cause,
      details: { reason: "answer_lost" },
    });
  }
}
