/** Something in a record that is not what it should be; says which field, never what stands there. */
export class RecordFault extends Error {
  constructor(message: string) {
    super(message);
    this.name = "RecordFault";
  }
}

/** An object as JSON has it, or a row of CSV. */
export type Fields = Readonly<Record<string, unknown>>;

export const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The object in a field; empty where there is none. */
export const fieldsIn = (fields: Fields, name: string): Fields => {
  const value = fields[name];
  return isFields(value) ? value : {};
};

/** The object that a field has as it is, or written as JSON; empty where there is none. */
export function jsonIn(fields: Fields, name: string): Fields {
  const value = fields[name];
  if (typeof value !== "string" || value === "") return fieldsIn(fields, name);
  const parsed = jsonOf(value, name);
  return isFields(parsed) ? parsed : {};
}

/** The objects in the list that a field has as it is, or written as JSON; empty where there is none. */
export function listIn(fields: Fields, name: string): readonly Fields[] {
  const value = fields[name];
  const list = typeof value === "string" && value !== "" ? jsonOf(value, name) : value;
  return Array.isArray(list) ? list.filter(isFields) : [];
}

function jsonOf(text: string, name: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new RecordFault(`${name} is not the JSON that it should be`);
  }
}

const isMissing = (value: unknown) => value === undefined || value === null || value === "";

/** The text of the first of these fields that there is. @throws RecordFault where it is something else */
export function textIn(fields: Fields, ...names: readonly string[]): string | undefined {
  const name = names.find((candidate) => !isMissing(fields[candidate]));
  if (name === undefined) return undefined;
  const value = fields[name];
  if (typeof value === "string") return value;
  if (typeof value === "number") return String(value);
  throw new RecordFault(`${name} is no text`);
}

const FLAGS: Readonly<Record<string, boolean>> = {
  true: true,
  t: true,
  yes: true,
  "1": true,
  false: false,
  f: false,
  no: false,
  "0": false,
};

/** @throws RecordFault where it is neither yes nor no */
export function flagIn(fields: Fields, ...names: readonly string[]): boolean | undefined {
  const name = names.find((candidate) => !isMissing(fields[candidate]));
  if (name === undefined) return undefined;
  const flag = FLAGS[String(fields[name]).toLowerCase()];
  if (flag === undefined) throw new RecordFault(`${name} is neither true nor false`);
  return flag;
}

/** The texts of a list; empty where there is none. */
export function textsIn(fields: Fields, name: string): readonly string[] {
  const value = fields[name];
  return Array.isArray(value) ? value.filter((entry) => typeof entry === "string") : [];
}

/** PostgreSQL writes "2024-05-01 10:00:00.123+00". */
const POSTGRES_TIME = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)(?:([+-]\d\d)(:?\d\d)?)?$/;

/**
 * A time in ISO 8601: from that, from what PostgreSQL writes, from milliseconds since 1970, or as MongoDB exports it.
 *
 * @throws RecordFault where it is none
 */
export function timeIn(fields: Fields, ...names: readonly string[]): string | undefined {
  const name = names.find((candidate) => !isMissing(fields[candidate]));
  if (name === undefined) return undefined;
  const value = fields[name];
  const time = new Date(timeOf(isFields(value) ? value.$date : value));
  if (Number.isNaN(time.getTime())) throw new RecordFault(`${name} is no time`);
  return time.toISOString();
}

function timeOf(value: unknown): number | string {
  if (typeof value === "number") return value;
  if (typeof value !== "string") return Number.NaN;
  if (/^\d{9,}$/.test(value)) return Number(value);
  const written = POSTGRES_TIME.exec(value);
  if (!written) return value;
  const [, day, time, hours = "+00", minutes = "00"] = written;
  return `${day}T${time}${hours}:${minutes.replace(":", "")}`;
}
