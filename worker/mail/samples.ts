import type { MailTemplate } from "../../server/features/mail/service.ts";

/** What is filled into a template, by the name that it has there. Empty: there is none. */
export type Values = Readonly<Record<string, string>>;

const SIGN_IN = {
  device: "Firefox 128 on Linux",
  device_name: "Ada's laptop",
  place: "Vienna, Austria",
  ip: "203.0.113.7",
  time: "March 1, 2026 at 12:00 PM UTC",
};

/** Each mail's own values, as examples: what `primer mail preview` shows, and which names a template may use. */
export const SAMPLES = {
  invitation: {
    username: "",
    inviter: "grace",
    code: "KX1qYt0m4Ql7cZ0vVJY1H3b8n2sWcUeR5dGfTzA9pLo",
    expires: "March 4, 2026 at 12:00 PM UTC",
  },
  verify_email: { expires: "March 2, 2026 at 12:00 PM UTC" },
  already_registered: { time: SIGN_IN.time },
  password_reset: { expires: "March 1, 2026 at 1:00 PM UTC" },
  password_changed: { time: SIGN_IN.time },
  email_changed: { time: SIGN_IN.time, new_address: "a•••@example.org" },
  new_sign_in: { ...SIGN_IN, ended: "" },
  suspicious_sign_in: {
    ...SIGN_IN,
    ended: "",
    new_device: "yes",
    new_network: "yes",
    failures_before: "yes",
    many_failures_before: "",
    impossible_travel: "yes",
    bad_network: "",
    new_hour: "",
    new_country: "",
    burst: "",
    mostly_failures: "",
  },
  account_locked: { time: SIGN_IN.time },
  refresh_reused: { ...SIGN_IN, signed_in: "February 27, 2026 at 8:15 AM UTC" },
  second_factor_changed: {
    time: SIGN_IN.time,
    totp_added: "yes",
    totp_removed: "",
    passkey_added: "",
    passkey_removed: "",
    recovery_codes_made: "",
    recovery_code_used: "",
  },
  daily_report: {
    day: "March 1, 2026",
    sign_ins: "1,204",
    sign_ins_before: "1,187",
    failures: "96",
    failures_before: "41",
    new_users: "12",
    new_users_before: "9",
    locked_accounts: "1",
    locked_accounts_before: "0",
    unusual_networks: "198.51.100.0/24 (80)",
    unusual_accounts: "grace (60)",
    top_failing: "198.51.100.23 (55)\n203.0.113.80 (14)\n2001:db8:7::/64 (9)",
  },
  operator_alert: {
    what: "The last verified backup is three days old",
    why: "The nightly backup has failed three times: there is no space left in /var/backups/primer.",
    mend: "Free some space there, then run “primer worker --run-once backup”.",
    time: SIGN_IN.time,
  },
} as const satisfies Record<MailTemplate, Values>;

export const MAIL_TEMPLATES = Object.keys(SAMPLES) as readonly MailTemplate[];

/** What every template can name beside its own values. */
export const COMMON_SAMPLES = {
  product: "primer",
  host: "login.example.org",
  username: "ada",
} as const satisfies Values;
