import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { loadSettings } from "../../../config/load.ts";
import type { Settings } from "../../../config/schema.ts";
import type { Message } from "../../../worker/mail/transport.ts";

/** A PNG of one pixel. */
export const PNG = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);

/** A folder of its own with these files, and the settings of an installation in it. */
export function mailHome(files: Readonly<Record<string, string | Uint8Array>> = {}) {
  const home = mkdtempSync(join(tmpdir(), "primer-mail-"));
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(home, path)), { recursive: true });
    writeFileSync(join(home, path), content);
  }
  return { home, remove: () => rmSync(home, { recursive: true, force: true }) };
}

export const settingsOf = (variables: Readonly<Record<string, string>> = {}, home = "/nonexistent"): Settings =>
  loadSettings(home, { PRIMER_SERVER__PUBLIC_URL: "https://login.example.org", ...variables }).settings;

export const message = (more: Partial<Message> = {}): Message => ({
  messageId: "<019b76da-a800-7000-8000-000000000000@login.example.org>",
  from: { name: "Example", address: "login@example.org" },
  replyTo: undefined,
  to: "ada@example.org",
  date: new Date("2026-03-01T12:00:00Z"),
  subject: "A subject",
  text: "A text\n",
  html: "<p>A text</p>",
  attachments: [],
  ...more,
});
