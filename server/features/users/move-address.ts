import type { Tx } from "../../../db/database.ts";
import type { UserRow } from "../../../db/queries/users.ts";
import type { Caller } from "../../deps.ts";
import { queueMail } from "../mail/service.ts";
import type { UserDeps } from "./user.ts";

/** Tells whoever reads the address that an account had until now that it has another one. */
export const tellOldAddress = (tx: Tx, deps: UserDeps, before: UserRow, caller: Caller | undefined) =>
  queueMail(
    tx,
    deps,
    { template: "email_changed", user_id: before.id, request_id: caller?.requestId ?? null },
    { sealed: async () => ({ to: before.email }) },
  );
