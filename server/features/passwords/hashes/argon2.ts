import { argon2 } from "../native.ts";
import { assertBounded, type HashFormat } from "./format.ts";

/** As much as the settings let primer's own hashes ask for: about a second, and 256 MiB for each slot of the pool. */
const MAX_KIB = 262_144;
const MAX_KIB_PASSES = 2_097_152;

/** argon2i, argon2d and argon2id as PHC strings (RFC 9106); Django writes "argon2" before them. */
export const ARGON2: readonly HashFormat[] = [
  {
    name: "argon2",
    pattern:
      /^(?:argon2)?(?<phc>\$argon2(?:id|i|d)\$(?:v=(?:16|19)\$)?m=(?<kib>\d{1,7}),t=(?<passes>\d{1,3}),p=\d{1,2}\$[A-Za-z0-9+/]{11,64}\$[A-Za-z0-9+/]{14,86})$/,
    read({ phc = "", kib, passes }) {
      assertBounded("memory in KiB", Number(kib), MAX_KIB);
      assertBounded("memory in KiB times passes", Number(kib) * Number(passes), MAX_KIB_PASSES);
      return async (password) => (await argon2()).verify(phc, password);
    },
  },
];
