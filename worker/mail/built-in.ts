/** The mails that are built in. A further language is a further folder and a line in {@link BUILT_IN}. */
import type { MailTemplate } from "../../server/features/mail/service.ts";
import accountLocked from "./en/account_locked.toml" with { type: "text" };
import alreadyRegistered from "./en/already_registered.toml" with { type: "text" };
import common from "./en/common.toml" with { type: "text" };
import dailyReport from "./en/daily_report.toml" with { type: "text" };
import emailChanged from "./en/email_changed.toml" with { type: "text" };
import invitation from "./en/invitation.toml" with { type: "text" };
import newSignIn from "./en/new_sign_in.toml" with { type: "text" };
import operatorAlert from "./en/operator_alert.toml" with { type: "text" };
import passwordChanged from "./en/password_changed.toml" with { type: "text" };
import passwordReset from "./en/password_reset.toml" with { type: "text" };
import refreshReused from "./en/refresh_reused.toml" with { type: "text" };
import secondFactorChanged from "./en/second_factor_changed.toml" with { type: "text" };
import suspiciousSignIn from "./en/suspicious_sign_in.toml" with { type: "text" };
import verifyEmail from "./en/verify_email.toml" with { type: "text" };

/** The files of one language, by name: what the templates have in common, and each of them. */
export type LocaleFiles = Readonly<Record<"common" | MailTemplate, string>>;

const EN: LocaleFiles = {
  common,
  invitation,
  verify_email: verifyEmail,
  already_registered: alreadyRegistered,
  password_reset: passwordReset,
  password_changed: passwordChanged,
  email_changed: emailChanged,
  new_sign_in: newSignIn,
  suspicious_sign_in: suspiciousSignIn,
  account_locked: accountLocked,
  refresh_reused: refreshReused,
  second_factor_changed: secondFactorChanged,
  daily_report: dailyReport,
  operator_alert: operatorAlert,
};

export const BUILT_IN: Readonly<Record<string, Partial<LocaleFiles>>> = { en: EN };
