export { type AccessTokenClaims, type AccessTokenSubject, signAccessToken, verifyAccessToken } from "./access-token.ts";
export {
  generationSecret,
  hashSecret,
  openRefreshToken,
  type RefreshPointer,
  sealRefreshToken,
} from "./refresh-token.ts";
