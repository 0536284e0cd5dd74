import { readableOn } from "../../../config/color.ts";
import { PAGE_STYLE } from "./page-assets.ts";

/** One page: what it asks, where its button sends the token, and what it says afterwards. */
export interface Page {
  readonly path: string;
  readonly title: string;
  readonly text: string;
  readonly button: string;
  readonly route: string;
  readonly done: string;
  /** Whether it asks for a new password. */
  readonly asksPassword?: boolean;
}

/** For installations without pages of their own: where links in mails lead. */
export const PAGES: readonly Page[] = [
  {
    path: "/verify-email",
    title: "Confirm your e-mail address",
    text: "Press the button if you have asked for this yourself. If not, close this page: nothing happens.",
    button: "Confirm my address",
    route: "/api/v1/auth/verify-email",
    done: "Your address is confirmed. You can log in now.",
  },
  {
    path: "/reset-password",
    title: "Set a new password",
    text: "Everybody who is logged in with your account will be logged out.",
    button: "Set my password",
    route: "/api/v1/auth/reset-password",
    done: "Your new password is set. You can log in with it now.",
    asksPassword: true,
  },
  {
    path: "/end-session",
    title: "Was it not you who signed in?",
    text: "Press the button to log that device out. Then set a new password, since somebody may know yours.",
    button: "Log that device out",
    route: "/api/v1/auth/end-session",
    done: "That device is logged out. Set a new password now.",
  },
];

export const PAGE_CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "object-src 'none'",
].join("; ");

export const styleOf = (color: string) =>
  `:root { --accent: ${color}; --on-accent: ${readableOn(color)}; }\n${PAGE_STYLE}`;

const ESCAPES: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const escaped = (text: string) => text.replace(/[&<>"]/g, (sign) => ESCAPES[sign] ?? sign);

const PASSWORD_FIELDS = `<label for="password">New password</label>
<input id="password" type="password" autocomplete="new-password" required maxlength="1024" aria-describedby="hint">
<p id="hint" class="hint">Long beats complicated: a few words that only you would put together.</p>
<label class="inline"><input id="show" type="checkbox"> Show it</label>
`;

export const htmlOf = ({ title, text, button, route, done, asksPassword }: Page, product: string) => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>${escaped(title)} – ${escaped(product)}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/account/page.css">
</head>
<body>
<main>
<p class="product">${escaped(product)}</p>
<h1>${escaped(title)}</h1>
<form id="form" data-route="${route}" data-done="${escaped(done)}">
<p>${escaped(text)}</p>
${asksPassword ? PASSWORD_FIELDS : ""}<button type="submit">${escaped(button)}</button>
</form>
<p id="message" role="status" tabindex="-1"></p>
<noscript><p>This page needs JavaScript to send its button's answer.</p></noscript>
</main>
<script src="/account/page.js"></script>
</body>
</html>
`;
