import { failed, textOf } from "../../../config/errors.ts";

/**
 * The two libraries that hash. The binary unpacks them into the folder for temporary files and loads them from there,
 * which hardened systems and containers often forbid.
 *
 * @throws OperatorError (exit 1) naming what to change
 */
export const argon2 = () => import("@node-rs/argon2").catch(cannotLoad);
export const bcrypt = () => import("@node-rs/bcrypt").catch(cannotLoad);

function cannotLoad(error: unknown): never {
  throw failed(
    `The library that hashes passwords cannot be loaded: ${textOf(error).split("\n")[0]}`,
    "It is unpacked into the folder for temporary files: mount that without noexec, or set TMPDIR to another folder.",
    error,
  );
}
