import { type Context, Elysia } from "elysia";
import type { Deps } from "../../deps.ts";
import { etagOf } from "../../etag.ts";
import { access } from "../../http/access.ts";
import { callerOf } from "../../http/context.ts";
import { describe } from "../../http/openapi.ts";
import { UserAnswer } from "../../http/shapes.ts";
import { resendVerification, verifyEmail } from "./confirm-email.ts";
import { endSessionByLink } from "./end-session.ts";
import { changePassword, changeProfile, deactivateOwn, exportOwn } from "./own-account.ts";
import { PAGE_SCRIPT } from "./page-assets.ts";
import { htmlOf, PAGE_CONTENT_SECURITY_POLICY, PAGES, styleOf } from "./pages.ts";
import { register } from "./register.ts";
import { forgotPassword, resetPassword } from "./reset-password.ts";
import {
  ChangePasswordBody,
  EmailAnswer,
  EmailBody,
  ExportAnswer,
  ProfileBody,
  RegisterAnswer,
  RegisterBody,
  ResetBody,
  TokenBody,
} from "./schema.ts";

const tag = "Accounts";
const OWN = "Own account";
const ACCEPTED = { status: "accepted" } as const;
const SENT = { status: "verification_sent" } as const;

/** What strangers may ask for: an account, or a mail about the one they have. */
const publicRoutes = (deps: Deps) =>
  new Elysia({ name: "accounts", prefix: "/api/v1/auth" })
    .post(
      "/register",
      async ({ body, request, set }) => {
        const made = await register(deps, body, callerOf(request));
        set.status = made ? 201 : 202;
        return made ?? SENT;
      },
      {
        body: RegisterBody,
        detail: describe({
          tag,
          summary: "Register",
          limits: ["register_ip"],
          description:
            "202 where addresses are verified: a mail has the link that makes the account valid, and an address that has an account is told so by mail. 201 with the user where nothing is left to verify. FORBIDDEN says in details.reason whether registration is closed or asks for an invitation, or is refused to the network.",
          takesBody: true,
          answers: { 201: UserAnswer, 202: RegisterAnswer },
          errors: ["FORBIDDEN", "CONFLICT", "LINK_INVALID", "PASSWORD_TOO_WEAK"],
        }),
      },
    )
    .post(
      "/verify-email",
      async ({ body, request, set }) => {
        await verifyEmail(deps, body.token, callerOf(request));
        set.status = 204;
      },
      {
        body: TokenBody,
        detail: describe({
          tag,
          summary: "Confirm an address by the link in the mail",
          description: "Of a new account, or the new address of an account. Logs nobody in.",
          takesBody: true,
          answers: { 204: "The address is verified" },
          errors: ["LINK_INVALID"],
        }),
      },
    )
    .post(
      "/resend-verification",
      async ({ body, request, set }) => {
        await resendVerification(deps, body.email, callerOf(request));
        set.status = 202;
        return ACCEPTED;
      },
      {
        body: EmailBody,
        detail: describe({
          tag,
          summary: "Send the link of a registration once more",
          description:
            "It works until a day after the registration, as the account waits no longer; links from before are dead. At most 3 an hour to one address.",
          takesBody: true,
          answers: { 202: EmailAnswer },
          errors: ["FORBIDDEN"],
        }),
      },
    )
    .post(
      "/forgot-password",
      async ({ body, request, set }) => {
        await forgotPassword(deps, body.email, callerOf(request));
        set.status = 202;
        return ACCEPTED;
      },
      {
        body: EmailBody,
        detail: describe({
          tag,
          summary: "Send a link that sets a new password",
          description: "Good for an hour and one use; links from before are dead. At most 3 an hour to one address.",
          takesBody: true,
          answers: { 202: EmailAnswer },
          errors: ["FORBIDDEN"],
        }),
      },
    )
    .post(
      "/reset-password",
      async ({ body, request, set }) => {
        await resetPassword(deps, body.token, body.new_password, callerOf(request));
        set.status = 204;
      },
      {
        body: ResetBody,
        detail: describe({
          tag,
          summary: "Set a new password by a token",
          description:
            "The token of the mail, or the change_token of AUTH_PASSWORD_CHANGE_REQUIRED. Every session ends, and nobody is logged in. A password that is too weak does not use the token up.",
          takesBody: true,
          answers: { 204: "The password is set" },
          errors: ["LINK_INVALID", "PASSWORD_TOO_WEAK"],
        }),
      },
    )
    .post(
      "/end-session",
      async ({ body, request, set }) => {
        await endSessionByLink(deps, body.token, callerOf(request));
        set.status = 204;
      },
      {
        body: TokenBody,
        detail: describe({
          tag,
          summary: "End a session by the link in the mail that told of it",
          takesBody: true,
          answers: { 204: "The session has ended" },
          errors: ["LINK_INVALID"],
        }),
      },
    );

/** What people change of their own account. */
const ownRoutes = (deps: Deps) =>
  new Elysia({ name: "own-account-changes", prefix: "/api/v1/users/me" })
    .use(access(deps))
    .put(
      "",
      async ({ body, principal, claims, request, set }) => {
        const user = await changeProfile(deps, { principal, claims }, body, callerOf(request));
        set.headers.etag = etagOf(JSON.stringify(user));
        return user;
      },
      {
        access: "user",
        body: ProfileBody,
        detail: describe({
          tag: OWN,
          summary: "Change your user name or address",
          description:
            "A new address counts once the link that is sent to it was used; the old one is told. It asks for current_password or a step-up.",
          bearer: true,
          takesBody: true,
          answers: { 200: UserAnswer },
          errors: ["CONFLICT", "AUTH_STEP_UP_REQUIRED", "AUTH_INVALID_CREDENTIALS"],
        }),
      },
    )
    .delete(
      "",
      async ({ principal, claims, request, set }) => {
        await deactivateOwn(deps, { principal, claims }, callerOf(request));
        set.status = 204;
      },
      {
        access: { stepUp: true },
        detail: describe({
          tag: OWN,
          summary: "Give your account up",
          description:
            "Every session ends. A login within accounts.erase_after takes it back; after that everything personal is erased.",
          bearer: true,
          answers: { 204: "Done" },
          errors: ["CONFLICT", "AUTH_STEP_UP_REQUIRED"],
        }),
      },
    )
    .patch(
      "/password",
      async ({ body, principal, claims, request, set }) => {
        await changePassword(deps, { principal, claims }, body, callerOf(request));
        set.status = 204;
      },
      {
        access: "user",
        body: ChangePasswordBody,
        detail: describe({
          tag: OWN,
          summary: "Change your password",
          description: "Every other session ends. A wrong current password counts as a failed login.",
          bearer: true,
          takesBody: true,
          answers: { 204: "The password is changed" },
          errors: ["AUTH_INVALID_CREDENTIALS", "PASSWORD_TOO_WEAK"],
        }),
      },
    )
    .get("/export", ({ principal, claims, request }) => exportOwn(deps, { principal, claims }, callerOf(request)), {
      access: { stepUp: true },
      detail: describe({
        tag: OWN,
        summary: "Everything that is kept on you",
        bearer: true,
        answers: { 200: ExportAnswer },
        errors: ["AUTH_STEP_UP_REQUIRED"],
      }),
    });

/**
 * The pages that links in mails lead to, for installations without pages of their own. Opening one changes nothing: the
 * token stands in the fragment, which no server sees, and is spent by the button.
 */
export function accountPages({ settings }: Pick<Deps, "settings">) {
  const pages = new Elysia({ name: "account-pages", prefix: "/account" });
  const serve = (set: Context["set"], type: string, content: string) => {
    set.headers["content-security-policy"] = PAGE_CONTENT_SECURITY_POLICY;
    set.headers["content-type"] = `text/${type}; charset=utf-8`;
    return content;
  };
  const hidden = { detail: { hide: true } };
  for (const page of PAGES) {
    pages.get(page.path, ({ set }) => serve(set, "html", htmlOf(page, settings.mail.product_name)), hidden);
  }
  return pages
    .get("/page.js", ({ set }) => serve(set, "javascript", PAGE_SCRIPT), hidden)
    .get("/page.css", ({ set }) => serve(set, "css", styleOf(settings.mail.color)), hidden);
}

export const accountRoutes = (deps: Deps) =>
  new Elysia({ name: "account-routes" }).use(publicRoutes(deps)).use(ownRoutes(deps));
