import { inSpan } from "../../../config/trace.ts";
import type { RefreshFamilyRow, SessionRow } from "../../../db/queries/sessions.ts";
import type { UserRow } from "../../../db/queries/users.ts";
import type { Deps } from "../../deps.ts";
import { sealRefreshToken, signAccessToken } from "../tokens/service.ts";

/** The answer of login and refresh. Lifetimes in seconds. */
export interface TokenAnswer {
  readonly access_token: string;
  readonly token_type: "bearer";
  readonly expires_in: number;
  readonly refresh_token: string;
  readonly refresh_expires_in: number;
  readonly session_id: string;
}

/** An access token alone. Its lifetime in seconds. */
export type AccessTokenAnswer = Pick<TokenAnswer, "access_token" | "token_type" | "expires_in">;

export interface IssueFor {
  readonly user: Pick<UserRow, "id" | "username">;
  readonly roles: readonly string[];
  readonly permissions: readonly string[];
  readonly session: Pick<SessionRow, "id" | "clientId" | "amr" | "authTime" | "expiresAt" | "fingerprintHash">;
  readonly family: Pick<RefreshFamilyRow, "id" | "generation" | "keyId" | "idleExpiresAt">;
}

/** An access token of a session, with the rights that are given. Writes nothing. */
export async function issueAccessToken(
  deps: Deps,
  { user, roles, permissions, session }: Omit<IssueFor, "family">,
): Promise<AccessTokenAnswer> {
  const began = deps.clock.elapsed();
  const subject = {
    userId: user.id,
    username: user.username,
    sessionId: session.id,
    clientId: session.clientId,
    amr: session.amr,
    authTime: session.authTime,
    roles,
    permissions,
    sessionEnd: session.expiresAt,
    fingerprintHash: session.fingerprintHash,
  };
  const { token, expiresIn } = await inSpan("token.sign", {}, () => signAccessToken(deps, subject));
  const took = deps.clock.elapsed() - began;
  deps.metrics.record("primer_request_stage_duration_seconds", took / 1000, { stage: "sign" });
  return { access_token: token, token_type: "bearer", expires_in: expiresIn };
}

/** The tokens of a session at the generation that its family has. Writes nothing. */
export async function issueTokens(deps: Deps, subject: IssueFor): Promise<TokenAnswer> {
  const { session, family } = subject;
  const refreshKey = deps.keys.refreshById(family.keyId);
  if (!refreshKey) throw new Error(`The refresh key ${family.keyId} is not open`);
  const [access, refreshToken] = await Promise.all([
    issueAccessToken(deps, subject),
    sealRefreshToken(refreshKey, family.id, family.generation),
  ]);
  const refreshUntil = Math.min(family.idleExpiresAt.getTime(), session.expiresAt.getTime());
  return {
    ...access,
    refresh_token: refreshToken,
    refresh_expires_in: Math.max(0, Math.round((refreshUntil - deps.clock.now().getTime()) / 1000)),
    session_id: session.id,
  };
}
