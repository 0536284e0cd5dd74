import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import Mustache, { type TemplateSpans } from "mustache";
import { parse as parseToml } from "smol-toml";
import { textOf } from "../../config/errors.ts";
import type { MailTemplate } from "../../server/features/mail/service.ts";
import { BUILT_IN, type LocaleFiles } from "./built-in.ts";
import { COMMON_SAMPLES, MAIL_TEMPLATES, SAMPLES } from "./samples.ts";

/** One mail as its file has it: texts with values to fill in, from which HTML and plain text are made alike. */
export interface Template {
  readonly subject: string;
  /** What lists of mails show beside the subject. */
  readonly preheader: string;
  readonly title: string;
  /** Those that come to nothing once they are filled in are left out. */
  readonly paragraphs: readonly string[];
  /** A name and its value or values; left out where the last one is empty. */
  readonly facts: readonly (readonly string[])[];
  /** What stands on the button with the link; without it there is none. */
  readonly button: string;
  readonly closing: readonly string[];
}

/** What all mails of a language have in common. */
export interface CommonTexts {
  readonly greeting: string;
  readonly link_hint: string;
  readonly several: string;
  readonly footer: string;
}

/** A file of the home that is of no use: another one is taken in its place. */
export interface TemplateProblem {
  readonly path: string;
  readonly reason: string;
}

/** Where an installation's own mails are: `mail/LOCALE/TEMPLATE.toml` in the home. */
export const OVERRIDES_FOLDER = "mail";
const FALLBACK = "en";

type FileName = keyof LocaleFiles;
type Kind = "text" | "texts" | "rows";

const TEMPLATE_FORM = {
  subject: "text",
  preheader: "text",
  title: "text",
  paragraphs: "texts",
  facts: "rows",
  button: "text",
  closing: "texts",
} as const satisfies Record<keyof Template, Kind>;
const COMMON_FORM = {
  greeting: "text",
  link_hint: "text",
  several: "text",
  footer: "text",
} as const satisfies Record<keyof CommonTexts, Kind>;

const EMPTY = { text: "", texts: [], rows: [] } as const;
const NEEDED: ReadonlySet<string> = new Set(["subject", "title", "paragraphs", ...Object.keys(COMMON_FORM)]);

/**
 * The template of a mail in a language, and what it has in common with the others: the home's own where there is a good
 * one, else the one that is built in; where the language has neither, English.
 *
 * @param tell is told of files of the home that are of no use
 */
export function findTemplate(
  home: string,
  locale: string,
  name: MailTemplate,
  tell: (problem: TemplateProblem) => void,
): { readonly template: Template; readonly common: CommonTexts } {
  return {
    template: findFile(home, locale, name, tell) as unknown as Template,
    common: findFile(home, locale, "common", tell) as unknown as CommonTexts,
  };
}

function findFile(
  home: string,
  locale: string,
  name: FileName,
  tell: (problem: TemplateProblem) => void,
): Record<string, unknown> {
  for (const tag of new Set([locale, locale.split("-")[0] ?? "", FALLBACK])) {
    const path = join(home, OVERRIDES_FOLDER, tag, `${name}.toml`);
    if (existsSync(path)) {
      try {
        return parseTemplate(readFileSync(path, "utf8"), name);
      } catch (error) {
        tell({ path, reason: textOf(error).split("\n")[0] ?? "" });
      }
    }
    const builtIn = BUILT_IN[tag]?.[name];
    if (builtIn !== undefined) return parseTemplate(builtIn, name);
  }
  throw new Error(`There is no built-in mail ${name}`);
}

/** Every file of the home's own mails that is of no use. */
export function checkOverrides(home: string): TemplateProblem[] {
  const folder = join(home, OVERRIDES_FOLDER);
  if (!existsSync(folder)) return [];
  const names: readonly string[] = ["common", ...MAIL_TEMPLATES];
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return files.flatMap((entry) => {
    const path = join(entry.parentPath, entry.name);
    const name = entry.name.replace(/\.toml$/, "");
    if (!entry.name.endsWith(".toml") || !names.includes(name)) {
      return [{ path, reason: `there is no mail of this name; there are ${names.join(", ")} (each .toml)` }];
    }
    try {
      parseTemplate(readFileSync(path, "utf8"), name as FileName);
      return [];
    } catch (error) {
      return [{ path, reason: textOf(error).split("\n")[0] ?? "" }];
    }
  });
}

/** Reads a file. Throws, in words for whoever wrote it, where it has not the right form or names a value that there is not. */
export function parseTemplate(source: string, name: FileName): Record<string, unknown> {
  const form: Readonly<Record<string, Kind>> = name === "common" ? COMMON_FORM : TEMPLATE_FORM;
  const document: Record<string, unknown> = parseToml(source);
  const unknown = Object.keys(document).find((key) => !(key in form));
  if (unknown !== undefined) throw new Error(`there is no ${unknown} here; there are ${Object.keys(form).join(", ")}`);
  const known = name === "common" ? COMMON_SAMPLES : { ...COMMON_SAMPLES, ...SAMPLES[name] };
  return Object.fromEntries(
    Object.entries(form).map(([key, kind]) => {
      const value = document[key] ?? EMPTY[kind];
      const texts = textsIn(value, kind);
      if (!texts || (NEEDED.has(key) && texts.length === 0)) throw new Error(`${key} must be ${EXPECTED[kind]}`);
      for (const text of texts) checkNames(key, text, Object.keys(known));
      return [key, value];
    }),
  );
}

const EXPECTED = {
  text: "a text",
  texts: "a list of texts",
  rows: "a list of lists, each of two or three texts",
} as const;

const areTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((text) => typeof text === "string");

/** All texts in a value; undefined where it has not the form. */
function textsIn(value: unknown, kind: Kind): string[] | undefined {
  if (kind === "text") return typeof value !== "string" ? undefined : value === "" ? [] : [value];
  if (kind === "texts") return areTexts(value) ? value : undefined;
  const isTable = Array.isArray(value) && value.every((row) => areTexts(row) && row.length >= 2 && row.length <= 3);
  return isTable ? value.flat() : undefined;
}

const TEXT = "text";
/** A value, a value with its characters as they are (here: the same), a part for where there is a value, and where not. */
const NAMING: ReadonlySet<string> = new Set(["name", "&", "#", "^"]);

function checkNames(key: string, text: string, known: readonly string[]): void {
  const look = (tokens: TemplateSpans): void => {
    for (const [kind, name, , , inside] of tokens) {
      if (kind === TEXT || kind === "!") continue;
      if (!NAMING.has(kind)) throw new Error(`${key} may not use {{${kind} …}}`);
      if (!known.includes(name)) throw new Error(`${key} names {{${name}}}; there are ${known.join(", ")}`);
      if (Array.isArray(inside)) look(inside);
    }
  };
  look(Mustache.parse(text));
}

/** Fills in a text. What is filled in stays as it is: it is made harmless where the mail is put together. */
export const fill = (text: string, values: Readonly<Record<string, string>>): string =>
  Mustache.render(text, values, undefined, { escape: String }).trim();
