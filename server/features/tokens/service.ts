export {
  type AccessTokenClaims,
  type AccessTokenSubject,
  createVerifiedTokens,
  signAccessToken,
  type VerifiedTokens,
  verifyAccessToken,
} from "./access-token.ts";
export {
  generationSecret,
  hashSecret,
  openRefreshToken,
  type RefreshPointer,
  sameText,
  sealRefreshToken,
} from "./refresh-token.ts";
