import { afterEach, describe, expect, test } from "bun:test";
import { appearanceOf, senderOf } from "../../worker/mail/appearance.ts";
import { type RenderedMail, renderMail } from "../../worker/mail/render.ts";
import { COMMON_SAMPLES, MAIL_TEMPLATES, SAMPLES, type Values } from "../../worker/mail/samples.ts";
import { checkOverrides, findTemplate, type TemplateProblem } from "../../worker/mail/templates.ts";
import { mailHome, PNG, settingsOf } from "./support/mail.ts";

const LINK = "https://login.example.org/account/end-session#token=abc";
const STYLE = { product: "Example", color: "#1f5f8b", logo: undefined, locale: "en" };

const removals: (() => void)[] = [];
afterEach(() => {
  for (const remove of removals.splice(0)) remove();
});
function homeWith(files: Record<string, string | Uint8Array> = {}): string {
  const { home, remove } = mailHome(files);
  removals.push(remove);
  return home;
}

type Name = (typeof MAIL_TEMPLATES)[number];

function render(name: Name, options: { home?: string; locale?: string; values?: Values; link?: string } = {}) {
  const problems: TemplateProblem[] = [];
  const { home = "/nonexistent", locale = "en", values = {}, link = LINK } = options;
  const files = findTemplate(home, locale, name, (problem) => problems.push(problem));
  const all = { ...COMMON_SAMPLES, ...SAMPLES[name], ...values };
  return { ...renderMail({ ...files, values: all, link, several: false }, STYLE), problems };
}

const BLANK = /\{\{|undefined|\[object|<p[^>]*>\s*<\/p>/;

describe.each([...MAIL_TEMPLATES])("%s", (name) => {
  const sampled = render(name);
  // Nothing of the template's own shows, whatever is known and whatever is not.
  test("is whole with every value, and with none but the common ones", () => {
    const empty = Object.fromEntries(Object.keys(SAMPLES[name]).map((key) => [key, ""]));
    for (const mail of [sampled, render(name, { values: empty, link: "" })]) {
      expect(mail.problems).toEqual([]);
      const body = mail.html.slice(mail.html.indexOf("<body"));
      for (const form of [mail.subject, body, mail.text]) expect(BLANK.exec(form)?.[0]).toBeUndefined();
      expect(mail.text).toContain(name === "invitation" ? "Hello," : "Hello ada,");
      expect(mail.subject).not.toBe("");
    }
  });

  test("says the same in both forms", () => {
    const words = (text: string) => text.replace(/[\s:]+/g, " ");
    const shown = words(plain(sampled.html));
    for (const line of sampled.text.split("\n\n").slice(0, -1)) {
      if (/ {2,}|#token=/.test(line)) continue; // the table and the button stand in another order
      expect(shown).toContain(words(line).trim());
    }
  });

  test("has no picture, script, form or address of its own to load", () => {
    expect(sampled.html).not.toMatch(/<(img|script|form|iframe|link|object)\b|url\(|@import/i);
    const links = [...sampled.html.matchAll(/(?:href|src)="([^"]*)"/g)].map(([, address]) => address);
    expect(new Set(links)).toEqual(new Set(links.length > 0 ? [LINK] : []));
  });
});

const ENTITIES: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', "#x27": "'", "#39": "'" };
/** What is read of HTML. */
const plain = (html: string) =>
  html
    .slice(html.indexOf("<h1"))
    .replace(/<br>/g, "\n")
    .replace(/<[^>]*>/g, " ")
    .replace(/&(#?\w+);/g, (all, name) => ENTITIES[name] ?? all);

test("plain text is broken where a line gets too long, and nowhere else", () => {
  const lines = render("suspicious_sign_in").text.split("\n");
  expect(lines).toContain("• The device has not been used for your account lately.");
  expect(lines.filter((line) => line.length > 76)).toEqual([LINK].filter((line) => line.length > 76));
});

// Whatever is filled in is text, wherever it stands: no tag, no attribute, no header, no further template.
describe("values", () => {
  const NASTY: readonly string[] = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{password}} {{{x}}} {{#a}}",
    "a\r\nBcc: eve@example.org",
    "\u202egnp.exe\u2066",
    "<!-- --> </td></table>",
  ];
  test.each([...NASTY])("%j is shown as it is", (nasty) => {
    const clean = render("new_sign_in");
    const mail = render("new_sign_in", { values: { product: nasty, device: nasty, place: nasty, username: nasty } });
    const tags = (html: string) => html.match(/<[a-z!/][^>]*>/gi)?.map((tag) => tag.replace(/".*?"/g, ""));
    expect(tags(mail.html.replaceAll("<br>", ""))).toEqual(tags(clean.html.replaceAll("<br>", "")));
    expect(mail.subject).not.toMatch(/[\r\n]/);
    expect(mail.html + mail.text).not.toMatch(/[\u202a-\u202e\u2066-\u2069\r]/);
    if (nasty.startsWith("{{")) expect(mail.text).toContain(nasty);
  });

  test("a link is an address and nothing more", () => {
    const { html } = render("new_sign_in", { link: 'https://a.example/"><script>#token=x' });
    expect(html).not.toContain("<script>");
  });
});

const GERMAN = `
subject = "Neue Anmeldung bei {{product}}"
title = "Neue Anmeldung"
paragraphs = ["Jemand hat sich angemeldet: {{device}}."]
button = "Sitzung beenden"
`;
const COMMON_GERMAN = `
greeting = "Hallo {{username}},"
link_hint = "Oder diese Adresse öffnen:"
several = "Mehrmals."
footer = "{{product}}, {{host}}"
`;

describe("the home's own mails", () => {
  test("a language is a folder; what it lacks is English", () => {
    const home = homeWith({ "mail/de/new_sign_in.toml": GERMAN, "mail/de/common.toml": COMMON_GERMAN });
    for (const locale of ["de", "de-AT"]) {
      const { subject, text, problems } = render("new_sign_in", { home, locale });
      expect({ subject, problems }).toEqual({ subject: "Neue Anmeldung bei primer", problems: [] });
      expect(text).toContain("Hallo ada,");
    }
    expect(render("password_reset", { home, locale: "de" }).subject).toContain("Set a new password");
    expect(render("new_sign_in", { home, locale: "fr" }).subject).toBe("New sign-in to primer");
    expect(checkOverrides(home)).toEqual([]);
  });

  test("one mail alone can be changed", () => {
    const home = homeWith({ "mail/en/new_sign_in.toml": GERMAN });
    expect(render("new_sign_in", { home }).subject).toBe("Neue Anmeldung bei primer");
    expect(render("new_sign_in", { home }).text).toContain("Hello ada,");
  });

  // A mistake in a file costs nobody a mail: the built-in one is sent, and the operator reads what is wrong where.
  const BROKEN: readonly [name: string, file: string, content: string, says: RegExp][] = [
    ["is no TOML", "new_sign_in", "subject = ", /TOML/],
    [
      "names a value that there is not",
      "new_sign_in",
      GERMAN.replace("{{device}}", "{{password}}"),
      /\{\{password\}\}.*device/,
    ],
    ["names another mail's value", "new_sign_in", GERMAN.replace("{{device}}", "{{day}}"), /\{\{day\}\}/],
    ["leaves a part open", "new_sign_in", GERMAN.replace("{{device}}", "{{#device}}"), /[Uu]nclosed/],
    ["reads a file", "new_sign_in", GERMAN.replace("{{device}}", "{{> /etc/passwd}}"), /may not use/],
    ["has a key too many", "new_sign_in", `${GERMAN}html = "<b>"`, /html/],
    ["lacks its title", "new_sign_in", GERMAN.replace(/title.*/, ""), /title/],
    ["has a text for a list", "new_sign_in", GERMAN.replace(/paragraphs.*/, 'paragraphs = "a"'), /paragraphs/],
    ["has a table of one column", "new_sign_in", `${GERMAN}facts = [["a"]]`, /facts/],
    ["lacks what is common", "common", 'greeting = "Hallo"', /must be a text/],
  ];
  test.each(BROKEN)("one that %s is passed over", (_name, file, content, says) => {
    const home = homeWith({ [`mail/en/${file}.toml`]: content });
    const { subject, text, problems } = render("new_sign_in", { home });
    expect(subject).toBe("New sign-in to primer");
    expect(text).toContain("Hello ada,");
    expect(problems).toHaveLength(1);
    expect(problems[0]?.path).toEndWith(`mail/en/${file}.toml`);
    expect(problems[0]?.reason).toMatch(says);
    expect(checkOverrides(home)).toEqual(problems);
  });

  test("a file of a name that no mail has is told of", () => {
    const problems = checkOverrides(homeWith({ "mail/en/welcome.toml": GERMAN }));
    expect(problems).toMatchObject([{ reason: expect.stringContaining("new_sign_in") }]);
  });
});

describe("how mails look", () => {
  const look = (files: Record<string, string | Uint8Array>, variables: Record<string, string>) => {
    const problems: TemplateProblem[] = [];
    const appearance = appearanceOf(settingsOf(variables), homeWith(files), (problem) => problems.push(problem));
    return { ...appearance, problems };
  };
  const imageIn = (mail: RenderedMail) => /<img src="([^"]+)" alt="([^"]+)"/.exec(mail.html)?.slice(1);
  const renderAs = (style: typeof STYLE | ReturnType<typeof look>["style"]) => {
    const files = findTemplate("/nonexistent", "en", "new_sign_in", () => {});
    const values = { ...COMMON_SAMPLES, ...SAMPLES.new_sign_in };
    return renderMail({ ...files, values, link: LINK, several: false }, style);
  };

  test("a picture of the home is sent along", () => {
    const { style, attachments, problems } = look({ "logo.png": PNG }, { PRIMER_MAIL__LOGO: "logo.png" });
    expect(problems).toEqual([]);
    expect(imageIn(renderAs(style))).toEqual([`cid:${attachments[0]?.cid}`, "primer"]);
    expect(attachments).toMatchObject([{ filename: "logo.png", content: PNG }]);
  });

  test("a picture elsewhere is named by its address", () => {
    const logo = "https://example.org/logo.png";
    const { style, attachments } = look({}, { PRIMER_MAIL__LOGO: logo, PRIMER_MAIL__PRODUCT_NAME: "Example & Co" });
    expect(attachments).toEqual([]);
    expect(imageIn(renderAs(style))).toEqual([logo, "Example &amp; Co"]);
  });

  test.each([
    ["is not there", {}],
    ["is no picture", { "logo.png": "<svg/>" }],
    ["is too large", { "logo.png": Buffer.concat([PNG, Buffer.alloc(200 * 1024)]) }],
  ])("a picture that %s is left out and told of", (_name, files) => {
    const { style, attachments, problems } = look(files, { PRIMER_MAIL__LOGO: "logo.png" });
    expect(attachments).toEqual([]);
    expect(problems).toHaveLength(1);
    expect(imageIn(renderAs(style))).toBeUndefined();
  });

  test("colour and language stand in the mail", () => {
    const { style } = look({}, { PRIMER_MAIL__COLOR: "#FFD400", PRIMER_MAIL__LOCALE: "de-at" });
    const { html } = renderAs(style);
    expect(html).toContain('<html lang="de-AT"');
    expect(html).toContain("background-color:#ffd400");
    expect(html).toContain("color:#000000");
  });
});

test.each([
  [{}, { name: "primer", address: "primer@login.example.org" }],
  [{ PRIMER_MAIL__PRODUCT_NAME: "Example" }, { name: "Example", address: "primer@login.example.org" }],
  [{ PRIMER_MAIL__FROM: "noreply@example.org" }, { name: "primer", address: "noreply@example.org" }],
  [{ PRIMER_MAIL__FROM: "Bücher, Inc <noreply@example.org>" }, { name: "Bücher, Inc", address: "noreply@example.org" }],
  [{ PRIMER_SERVER__PUBLIC_URL: "http://127.0.0.1:8080" }, { name: "primer", address: "primer@localhost" }],
])("mails come from: %j", (variables, sender) => {
  expect(senderOf(settingsOf(variables))).toEqual(sender);
});
