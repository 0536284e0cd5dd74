export {
  type AccessTokenClaims,
  type AccessTokenSubject,
  createVerifiedTokens,
  signAccessToken,
  type VerifiedTokens,
  verifyAccessToken,
} from "./access-token.ts";
export {
  fitsHash,
  generationSecret,
  hashSecret,
  openRefreshToken,
  type RefreshPointer,
  sealRefreshToken,
} from "./refresh-token.ts";
export { issueSingleUseToken, lookAtSingleUseToken, type TokenPurpose, type TokenRequest } from "./single-use-token.ts";
