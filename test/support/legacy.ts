/** The secret that the service before signed its tokens with. */
export const LEGACY_SECRET = "the secret of the service before, long enough";

/** Settings by which its tokens are taken. */
export const LEGACY_SETTINGS = {
  PRIMER_TOKENS__LEGACY_SECRET: LEGACY_SECRET,
  PRIMER_TOKENS__LEGACY_ISSUER: "https://old.example.test",
  PRIMER_TOKENS__LEGACY_AUDIENCE: "shop",
  PRIMER_TOKENS__LEGACY_UNTIL: "2027-01-01T00:00:00Z",
};
