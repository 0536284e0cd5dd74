import type { Values } from "./samples.ts";
import { type CommonTexts, fill, type Template } from "./templates.ts";

/** How an installation's mails look. */
export interface Style {
  readonly product: string;
  /** Colour of buttons, as "#rrggbb". */
  readonly color: string;
  /** Where the picture over a mail is: an https URL, or "cid:…" of one that is sent along. */
  readonly logo: string | undefined;
  readonly locale: string;
}

export interface MailContent {
  readonly template: Template;
  readonly common: CommonTexts;
  readonly values: Values;
  /** Where the button leads. Empty: there is none. */
  readonly link: string;
  /** Whether it stands for several. */
  readonly several: boolean;
}

export interface RenderedMail {
  readonly subject: string;
  readonly html: string;
  readonly text: string;
}

/** A mail with everything filled in, before it is one of both forms. All of it is plain text. */
interface FilledMail {
  readonly subject: string;
  readonly preheader: string;
  readonly title: string;
  readonly paragraphs: readonly string[];
  readonly facts: readonly (readonly string[])[];
  readonly button: { readonly label: string; readonly link: string; readonly hint: string } | undefined;
  readonly closing: readonly string[];
  readonly footer: string;
}

/** Puts a mail together, as HTML and as plain text with the same content. Whatever is filled in appears as it is typed. */
export function renderMail(content: MailContent, style: Style): RenderedMail {
  const mail = fillMail(content);
  return { subject: mail.subject, html: htmlOf(mail, style), text: textOf(mail) };
}

/** Control characters, and those that make text run in another direction than it is read. */
const UNPRINTABLE = /[^\P{Cc}\n]|[\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

function fillMail({ template, common, values, link, several }: MailContent): FilledMail {
  const clean = Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, value.replace(UNPRINTABLE, " ")]),
  );
  const one = (text: string) => fill(text, clean);
  const all = (texts: readonly string[]) => texts.map(one).filter((text) => text !== "");
  const hasButton = template.button !== "" && link !== "";
  return {
    subject: one(template.subject).replace(/\s+/g, " "),
    preheader: one(template.preheader),
    title: one(template.title),
    paragraphs: [one(common.greeting), ...all(template.paragraphs), ...(several ? [one(common.several)] : [])],
    facts: template.facts.map((row) => row.map(one)).filter((row) => row.at(-1) !== ""),
    button: hasButton ? { label: one(template.button), link, hint: one(common.link_hint) } : undefined,
    closing: all(template.closing),
    footer: one(common.footer),
  };
}

const TEXT_WIDTH = 76;

/** Lines of at most 76 characters, but for words that are longer: links stay whole. */
const wrap = (text: string) =>
  text.replace(new RegExp(`(?![^\\n]{1,${TEXT_WIDTH}}$)([^\\n]{1,${TEXT_WIDTH}}) `, "gm"), "$1\n");

function textOf({ title, paragraphs, facts, button, closing, footer }: FilledMail): string {
  const parts = [
    title,
    ...paragraphs.map(wrap),
    textTable(facts),
    button ? `${button.label}:\n${button.link}` : "",
    ...closing.map(wrap),
    `-- \n${wrap(footer)}`,
  ];
  return `${parts.filter((part) => part !== "").join("\n\n")}\n`;
}

function textTable(rows: readonly (readonly string[])[]): string {
  const lines = rows.flatMap((row) => {
    const heights = row.map((cell) => cell.split("\n"));
    const height = Math.max(...heights.map((cell) => cell.length));
    return Array.from({ length: height }, (_, index) => heights.map((cell) => cell[index] ?? ""));
  });
  const widths = lines.reduce<number[]>(
    (most, line) => line.map((cell, column) => Math.max(most[column] ?? 0, line.length - 1 > column ? cell.length : 0)),
    [],
  );
  return lines
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

const escapeHtml = (text: string) => Bun.escapeHTML(text).replaceAll("\n", "<br>");

const FONT = "-apple-system,BlinkMacSystemFont,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif";

/** For readers that know about dark mode; the others see what stands in the elements themselves. */
const STYLE_SHEET = `
:root{color-scheme:light dark;supported-color-schemes:light dark}
a{color:inherit}
@media (max-width:620px){.card{padding:24px 20px!important}.page{padding:0!important}.box{border-radius:0!important}}
@media (prefers-color-scheme:dark){
body,.page{background-color:#15181c!important}
.box{background-color:#1f242a!important;border-color:#333a42!important}
.ink{color:#e8eaed!important}.soft{color:#a9b1ba!important}
.facts{background-color:#272d34!important}.row{border-color:#3a424b!important}
}`;

/** Tables and styles in the elements themselves: what mail readers understand, down to the oldest. */
function htmlOf(mail: FilledMail, style: Style): string {
  const { subject, preheader, title, paragraphs, button, closing, footer } = mail;
  const paragraph = (text: string) =>
    `<p class="ink" style="margin:0 0 16px;color:#23282e;font-size:16px;line-height:1.5">${escapeHtml(text)}</p>`;
  return `<!doctype html>
<html lang="${escapeHtml(style.locale)}" dir="auto">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="supported-color-schemes" content="light dark">
<meta name="format-detection" content="telephone=no,date=no,address=no,email=no">
<title>${escapeHtml(subject)}</title>
<style>${STYLE_SHEET}
</style>
</head>
<body style="margin:0;padding:0;background-color:#eef1f4;font-family:${FONT}">
<div style="display:none;max-height:0;overflow:hidden;mso-hide:all">${escapeHtml(preheader)}</div>
<table role="presentation" class="page" width="100%" cellpadding="0" cellspacing="0" border="0" style="background-color:#eef1f4;padding:32px 12px;font-family:${FONT}">
<tr><td align="center">
<table role="presentation" class="box" width="600" cellpadding="0" cellspacing="0" border="0" style="width:100%;max-width:600px;background-color:#ffffff;border:1px solid #dde2e7;border-radius:10px">
<tr><td class="card" style="padding:36px 40px 28px">
${headHtml(style)}
<h1 class="ink" style="margin:0 0 20px;color:#14181c;font-size:24px;line-height:1.3;font-weight:650">${escapeHtml(title)}</h1>
${paragraphs.map(paragraph).join("\n")}
${factsHtml(mail.facts)}
${button ? buttonHtml(button, style) : ""}
${closing.map(paragraph).join("\n")}
</td></tr>
<tr><td class="card row" style="padding:18px 40px 22px;border-top:1px solid #dde2e7">
<p class="soft" style="margin:0;color:#59636e;font-size:13px;line-height:1.5">${escapeHtml(footer)}</p>
</td></tr>
</table>
</td></tr>
</table>
</body>
</html>
`.replace(/\n{2,}/g, "\n");
}

const headHtml = ({ logo, product }: Style) =>
  logo === undefined
    ? `<p class="soft" style="margin:0 0 24px;color:#59636e;font-size:15px;line-height:1.4;font-weight:600">${escapeHtml(product)}</p>`
    : `<img src="${escapeHtml(logo)}" alt="${escapeHtml(product)}" height="40" style="display:block;height:40px;max-width:100%;margin:0 0 24px;border:0;color:#59636e;font-size:15px;font-weight:600">`;

function factsHtml(facts: readonly (readonly string[])[]): string {
  if (facts.length === 0) return "";
  const columns = Math.max(...facts.map((row) => row.length));
  const rows = facts.map((row, index) => {
    const border = index === 0 ? "" : "border-top:1px solid #dde2e7;";
    const cells = row.map((text, column) => {
      const span = column === row.length - 1 && row.length < columns ? ` colspan="${columns - column}"` : "";
      return column === 0
        ? `<td class="soft row" width="34%" style="${border}padding:9px 14px;color:#59636e;font-size:14px;line-height:1.45;vertical-align:top">${escapeHtml(text)}</td>`
        : `<td class="ink row"${span} style="${border}padding:9px 14px;color:#23282e;font-size:15px;line-height:1.45;vertical-align:top;overflow-wrap:anywhere">${escapeHtml(text)}</td>`;
    });
    return `<tr>${cells.join("")}</tr>`;
  });
  return `<table role="presentation" class="facts" width="100%" cellpadding="0" cellspacing="0" border="0" style="margin:4px 0 24px;background-color:#f5f7f9;border-radius:8px">
${rows.join("\n")}
</table>`;
}

function buttonHtml({ label, link, hint }: NonNullable<FilledMail["button"]>, { color }: Style): string {
  const url = escapeHtml(link);
  return `<table role="presentation" cellpadding="0" cellspacing="0" border="0" style="margin:4px 0 20px"><tr>
<td align="center" bgcolor="${color}" style="background-color:${color};border-radius:8px"><a href="${url}" style="display:inline-block;padding:13px 26px;color:${inkOn(color)};font-size:16px;line-height:1.25;font-weight:600;text-decoration:none">${escapeHtml(label)}</a></td>
</tr></table>
<p class="soft" style="margin:0 0 20px;color:#59636e;font-size:13px;line-height:1.5">${escapeHtml(hint)}<br><a href="${url}" class="soft" style="color:#59636e;overflow-wrap:anywhere;word-break:break-all">${url}</a></p>`;
}

/** White or black, whichever is read better on a colour: one of them has a contrast of 4.5 to 1 (WCAG 2.2, 1.4.3) always. */
export function inkOn(color: string): "#ffffff" | "#000000" {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const part = Number.parseInt(color.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return 1.05 / (luminance + 0.05) >= 4.5 ? "#ffffff" : "#000000";
}
