import { traceFields } from "./trace.ts";

export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Fields of a line; `event` is a stable dotted name that alerts can match. */
export type LogFields = Readonly<Record<string, unknown>> & { readonly event: string };

/** Writes JSON lines: time, level, msg, request_id where there is one, event, and the fields given. */
export interface Log {
  debug(message: string, fields: LogFields): void;
  info(message: string, fields: LogFields): void;
  warn(message: string, fields: LogFields): void;
  error(message: string, fields: LogFields & { readonly error?: unknown }): void;
}

/** Names under which a value is never written, whatever it is nested in. */
const SECRET_NAMES =
  /^(.*_)?(password|passwd|secret|token|authorization|cookie|set-cookie|pepper|master_key|private_key|smtp_url|hash|body|html|text)$/i;
const EMAIL = /(?<![\p{L}\p{N}._%+-])([\p{L}\p{N}._%+-])[\p{L}\p{N}._%+-]*@([\p{L}\p{N}.-]+\.[\p{L}]{2,}|localhost)/gu;
const TOKEN = /(?<![A-Za-z0-9_-])ey[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]*/g;
const URL_CREDENTIALS = /\b([a-z][a-z0-9+]{0,30}:\/\/)[^\s/]+@/gi;
/** The query builder's errors end with the values of the statement, which may be hashes and addresses. */
const STATEMENT_VALUES = /\nparams: [\s\S]*?(?=\n {4}at |$)/g;

/** Removes what must not stand in a log from free text: tokens, credentials in URLs, and all but the first letter of mail names. */
export function redactText(value: string): string {
  // To look for what each of them has in it takes a tenth of the time of the patterns, and lines are many.
  let text = value;
  if (text.includes("\nparams: ")) text = text.replace(STATEMENT_VALUES, "");
  if (text.includes("ey")) text = text.replace(TOKEN, "[token]");
  if (!text.includes("@")) return text;
  return text.replace(URL_CREDENTIALS, "$1[redacted]@").replace(EMAIL, "$1***@$2");
}

/** How a name begins its field in a line; undefined where its value is secret. Of most lines all names are known. */
const fieldBegins = new Map<string, string | undefined>();
/** Names may come from outside, so no more of them than this are remembered. */
const MAX_FIELD_NAMES = 1000;

function beginOf(name: string): string | undefined {
  if (fieldBegins.has(name)) return fieldBegins.get(name);
  const begin = SECRET_NAMES.test(name) ? undefined : `,${JSON.stringify(name)}:`;
  if (fieldBegins.size < MAX_FIELD_NAMES) fieldBegins.set(name, begin);
  return begin;
}

const isSecretName = (name: string): boolean => beginOf(name) === undefined;

/** What JSON writes as it is. */
const PLAIN = /^[ !#-[\]-~]*$/;
const quoted = (text: string): string => (PLAIN.test(text) ? `"${text}"` : JSON.stringify(text));

/** The fields of a line, each with a comma before it. By hand: a server writes more lines than anything else. */
function textOfFields(fields: Readonly<Record<string, unknown>>): string {
  let text = "";
  for (const name in fields) {
    const value = fields[name];
    if (value === undefined) continue;
    const begin = beginOf(name);
    if (begin === undefined) text += `,${JSON.stringify(name)}:${value === null ? "null" : '"[redacted]"'}`;
    else if (typeof value === "string") text += begin + quoted(redactText(value));
    else text += begin + (JSON.stringify(redact("", value)) ?? "null");
  }
  return text;
}

/** What may be written of a value: a copy, since JSON with a function that looks at every value takes much longer. */
function redact(name: string, value: unknown): unknown {
  if (isSecretName(name) && value !== null && value !== undefined) return "[redacted]";
  if (typeof value === "string") return redactText(value);
  if (typeof value === "bigint") return value.toString();
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Error) return redactFields(errorFields(value));
  if (Array.isArray(value)) return value.map((item) => redact("", item));
  if ("toJSON" in value && typeof value.toJSON === "function") return redact("", value.toJSON(name));
  return redactFields(value);
}

function redactFields(fields: object): object {
  const copy = Object.create(null); // so that no name means anything
  for (const [name, value] of Object.entries(fields)) copy[name] = redact(name, value);
  return copy;
}

function errorFields(error: Error, depth = 0): Record<string, unknown> {
  const cause = error.cause instanceof Error && depth < 4 ? errorFields(error.cause, depth + 1) : undefined;
  return {
    name: error.name,
    message: error.message,
    code: (error as { code?: unknown }).code,
    stack: error.stack,
    cause,
  };
}

/** How much unread output may pile up before further lines are dropped (and counted) rather than fill the memory. */
const MAX_BACKLOG_BYTES = 4 * 1024 * 1024;

export interface LogSink {
  write(line: string): unknown;
  readonly writableLength?: number;
}

/**
 * @param level asked at each line for the least serious level that is written
 * @param sink where the lines go, usually process.stdout
 * @param now the clock
 */
export function createLog(level: () => LogLevel, sink: LogSink, now: () => Date): Log {
  let dropped = 0;
  const write = (lineLevel: LogLevel, msg: string, fields: LogFields) => {
    if (LOG_LEVELS.indexOf(lineLevel) < LOG_LEVELS.indexOf(level())) return;
    if ((sink.writableLength ?? 0) > MAX_BACKLOG_BYTES) {
      dropped++;
      return;
    }
    const missed = dropped > 0 ? { lines_dropped: dropped } : undefined;
    dropped = 0;
    const traced = "trace_id" in fields ? undefined : traceFields(); // what is told later has them with it
    const more = textOfFields({ ...traced, ...missed });
    sink.write(
      `{"time":"${now().toISOString()}","level":"${lineLevel}","msg":${quoted(redactText(msg))}${textOfFields(fields)}${more}}\n`,
    );
  };
  return {
    debug: (msg, fields) => write("debug", msg, fields),
    info: (msg, fields) => write("info", msg, fields),
    warn: (msg, fields) => write("warn", msg, fields),
    error: (msg, fields) => write("error", msg, fields),
  };
}
