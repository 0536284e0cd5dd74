import type { RoleOnThing } from "../../../db/queries/moving.ts";
import type { UserStatus } from "../../../db/schema/users.ts";

/**
 * A user as an export has them, in primer's words; what is not there was not said. All of it is text that anybody may have
 * written: nothing has been checked. It crosses the socket of the process that owns the database, so it is plain JSON.
 */
export interface Draft {
  /** primer's own id, from an export of primer's. */
  readonly id?: string;
  /** What the other product calls the user by and never changes. */
  readonly externalId?: string;
  readonly username?: string;
  readonly email?: string;
  readonly emailVerified?: boolean;
  readonly emailVerifiedAt?: string;
  readonly status?: UserStatus;
  /** In PHC or modular crypt form. */
  readonly passwordHash?: string;
  /** Why the hash there cannot be put into such a form. */
  readonly passwordFault?: string;
  /** Of the pepper under the hash, where primer made it. */
  readonly pepperId?: string;
  readonly passwordChangedAt?: string;
  readonly passwordChangeRequired?: boolean;
  /** As they are called there. */
  readonly roles?: readonly string[];
  /** Roles on single things, from an export of primer's. */
  readonly grants?: readonly RoleOnThing[];
  readonly createdAt?: string;
  readonly updatedAt?: string;
  readonly lastLoginAt?: string;
  readonly deactivatedAt?: string;
}

export interface ImportOptions {
  /** Of what product the drafts are: ids that are made here follow from it and the id there. */
  readonly product: string;
  /** Roles there and what they are called here. Without it they are called the same. */
  readonly roleMap?: Readonly<Record<string, string>>;
  /** Give another user name where the one there does not fit or is taken. */
  readonly rename: boolean;
  /** Take users whose hash cannot be checked, without it. */
  readonly withoutPassword: boolean;
  /** Tell what would happen; write nothing. */
  readonly dryRun: boolean;
}

export type RejectCode =
  | "damaged"
  | "email_missing"
  | "email_invalid"
  | "email_taken"
  | "username_invalid"
  | "username_taken"
  | "registration_pending"
  | "password_hash_refused"
  | "pepper_unknown";

/** What became of one draft. */
export type ImportOutcome =
  | {
      readonly outcome: "imported";
      readonly username: string;
      readonly emailKey: string;
      /** The format of the hash; null where there is none. */
      readonly hash: string | null;
      /** Whether the name is another one than there, or was made since there was none. */
      readonly naming: "kept" | "renamed" | "made";
      readonly rolesIgnored: readonly string[];
    }
  | { readonly outcome: "existing" }
  | { readonly outcome: "rejected"; readonly code: RejectCode; readonly reason: string };

export type Rejected = Extract<ImportOutcome, { outcome: "rejected" }>;
