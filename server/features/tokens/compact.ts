/** Whether every part of a compact token is base64url with its unused bits zero: else one token could be written in several ways. */
export const isCanonical = (token: string): boolean =>
  token.split(".").every((part) => Buffer.from(part, "base64url").toString("base64url") === part);
