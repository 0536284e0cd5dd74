export {
  type AccessTokenClaims,
  type AccessTokenSubject,
  createVerifiedTokens,
  knownClaims,
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
export {
  consumeSingleUseToken,
  issueSingleUseToken,
  type LinkPurpose,
  lookAtSingleUseToken,
  type TokenPurpose,
  type TokenRequest,
} from "./single-use-token.ts";
