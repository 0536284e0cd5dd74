/** What the pages do: keep the token out of the address bar, send it once the button is pressed, and tell how it went. */
export const PAGE_SCRIPT = `const form = document.getElementById("form");
const message = document.getElementById("message");
const button = form.querySelector("button");
const password = document.getElementById("password");
const token = new URLSearchParams(location.hash.slice(1)).get("token");
history.replaceState(null, "", location.pathname);

function tell(text, kind) {
  message.textContent = text;
  message.className = kind;
  message.focus();
}

const INVALID = "This link is not valid any more. It may have been used, replaced by a newer one, or be too old: ask for a new one.";

function explain(status, error) {
  if (error && error.code === "LINK_INVALID") return INVALID;
  if (error && error.code === "PASSWORD_TOO_WEAK") {
    const reasons = (error.details && error.details.reasons) || [];
    return ["This password is too weak.", ...reasons.map((reason) => reason.message || String(reason))].join(" ");
  }
  if (error && error.code === "VALIDATION_FAILED") return "Something is missing or too long. Check what you have typed.";
  if (status === 429) return "Too many tries. Wait a minute, then press the button again.";
  return "This could not be done just now. Try again in a moment.";
}

if (!token) {
  form.hidden = true;
  tell(INVALID, "bad");
}
const show = document.getElementById("show");
if (show) show.addEventListener("change", () => { password.type = show.checked ? "text" : "password"; });

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  tell("One moment …", "");
  try {
    const answer = await fetch(form.dataset.route, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(password ? { token, new_password: password.value } : { token }),
      cache: "no-store",
      credentials: "omit",
    });
    if (answer.ok) {
      form.hidden = true;
      tell(form.dataset.done, "good");
      return;
    }
    const { error } = await answer.json().catch(() => ({}));
    if (error && error.code === "LINK_INVALID") form.hidden = true;
    tell(explain(answer.status, error), "bad");
  } catch {
    tell("There is no connection. Check it, then press the button again.", "bad");
  }
  button.disabled = false;
});
`;

export const PAGE_STYLE = `:root { color-scheme: light dark; --text: #1b1f24; --quiet: #57606a; --back: #f4f5f7; --card: #fff; --line: #d0d7de; --good: #116329; --bad: #a40e26; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --quiet: #9da7b3; --back: #0d1117; --card: #161b22; --line: #30363d; --good: #56d364; --bad: #ff938a; }
}
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem 1rem; background: var(--back); color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
main { width: 100%; max-width: 26rem; padding: 2rem; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.product { margin: 0 0 .5rem; color: var(--quiet); font-weight: 600; overflow-wrap: anywhere; }
h1 { margin: 0 0 1rem; font-size: 1.5rem; line-height: 1.25; }
p { margin: 0 0 1.25rem; }
label { display: block; margin-bottom: .25rem; font-weight: 600; }
label.inline { font-weight: 400; margin-bottom: 1.25rem; }
input[type="password"], input[type="text"] { width: 100%; padding: .625rem .75rem; font: inherit; color: inherit; background: var(--back); border: 1px solid var(--quiet); border-radius: 8px; }
.hint { margin: .375rem 0 .75rem; color: var(--quiet); font-size: .875rem; }
button { width: 100%; min-height: 2.75rem; padding: .625rem 1rem; font: inherit; font-weight: 600; color: var(--on-accent); background: var(--accent); border: 1px solid var(--line); border-radius: 8px; cursor: pointer; }
button:disabled { opacity: .6; cursor: default; }
:focus-visible { outline: 3px solid var(--text); outline-offset: 2px; }
#message { margin: 0; }
#message:focus { outline: none; }
form:not([hidden]) + #message:not(:empty) { margin-top: 1rem; }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
`;
