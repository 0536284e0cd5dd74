/** For tests that are not about limits, and log in as often as they need to. */
export const NO_LIMITS: Readonly<Record<string, string>> = {
  PRIMER_ACCOUNTS__DELAY_AFTER: "0",
  PRIMER_ACCOUNTS__LOCK_AFTER: "0",
  PRIMER_RATE_LIMITS__LOGIN_IP: "off",
  PRIMER_RATE_LIMITS__LOGIN_IP_ACCOUNT: "off",
  PRIMER_RATE_LIMITS__LOGIN_SERVICE: "off",
  PRIMER_RATE_LIMITS__LOGIN_ACCOUNT: "off",
  PRIMER_RATE_LIMITS__GENERAL: "off",
  PRIMER_RATE_LIMITS__REFRESH: "off",
};
