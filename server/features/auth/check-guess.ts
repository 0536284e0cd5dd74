import type { Deps } from "../../deps.ts";
import { checkPassword, type PasswordCheck, type StoredPassword } from "../passwords/service.ts";
import { type Guess, releaseGuess } from "../protection/service.ts";

/**
 * Checks the password of a reserved attempt; of a locked account's none is right, after the same work. Where it cannot be
 * checked now, the attempt is not counted: an overloaded service locks nobody out.
 *
 * @throws AppError SERVICE_UNAVAILABLE when the hash pool is full
 */
export async function checkGuess(
  deps: Deps,
  guess: Guess,
  password: string,
  stored: StoredPassword | undefined,
): Promise<PasswordCheck> {
  try {
    return await checkPassword(deps, password, guess.isLocked ? undefined : stored);
  } catch (error) {
    await releaseGuess(deps, guess);
    throw error;
  }
}
