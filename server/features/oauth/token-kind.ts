import { AppError, ERRORS } from "../../errors.ts";

/**
 * Whether a text could only be a refresh token. They have five parts and access tokens have three, so the client's
 * `token_type_hint` has nothing to add (RFC 7662, section 2.1, lets us ignore it).
 */
export const looksLikeRefreshToken = (token: string): boolean => token.split(".", 6).length === 5;

/** Undefined where a token was found not to count. Any other failure stays one: it says nothing about the token. */
export async function unlessNotGood<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof AppError && ERRORS[error.errorCode].status === 401) return undefined;
    throw error;
  }
}
