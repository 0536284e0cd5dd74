/**
 * A checker for the part of JSON Schema that our OpenAPI document uses. A keyword that it does not know is a fault of its
 * own, so that nothing passes only because nobody looked.
 */
export type Schema = Readonly<Record<string, unknown>>;

const FORMATS: Readonly<Record<string, RegExp>> = {
  uuid: /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/,
  "date-time": /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/,
  integer: /^-?\d+$/,
};

/** Say something to people and nothing about values. */
const ANNOTATIONS = new Set(["nullable", "description", "default", "examples", "example", "title"]);

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const TYPES: Readonly<Record<string, (value: unknown) => boolean>> = {
  object: isRecord,
  array: Array.isArray,
  string: (value) => typeof value === "string",
  boolean: (value) => typeof value === "boolean",
  number: (value) => typeof value === "number",
  integer: Number.isInteger,
  null: (value) => value === null,
};

type Rule = (value: unknown, parameter: unknown, path: string, schema: Schema) => string[];

const RULES: Readonly<Record<string, Rule>> = {
  type: (value, type, path) => (TYPES[String(type)]?.(value) ? [] : [`${path}: not of type ${type}`]),
  const: (value, constant, path) => (Bun.deepEquals(value, constant) ? [] : [`${path}: not ${constant}`]),
  enum: (value, choices, path) => ((choices as unknown[]).includes(value) ? [] : [`${path}: not one of ${choices}`]),
  format: (value, format, path) =>
    FORMATS[String(format)]?.test(String(value)) ? [] : [`${path}: not in format ${format}`],
  minLength: (value, length, path) => (String(value).length >= Number(length) ? [] : [`${path}: too short`]),
  maxLength: (value, length, path) => (String(value).length <= Number(length) ? [] : [`${path}: too long`]),
  pattern: (value, pattern, path) =>
    new RegExp(String(pattern)).test(String(value)) ? [] : [`${path}: not in the form ${pattern}`],
  anyOf: (value, schemas, path) =>
    (schemas as Schema[]).some((schema) => faultsOf(value, schema, path).length === 0) ? [] : [`${path}: fits none`],
  required: (value, names, path) =>
    (names as string[])
      .filter((name) => isRecord(value) && !(name in value))
      .map((name) => `${path}.${name}: is missing`),
  properties: (value, schemas, path) =>
    Object.entries(schemas as Record<string, Schema>).flatMap(([name, schema]) =>
      isRecord(value) && name in value ? faultsOf(value[name], schema, `${path}.${name}`) : [],
    ),
  additionalProperties: (value, allowed, path, schema) => {
    if (allowed === true || !isRecord(value)) return [];
    const others = Object.keys(value).filter((name) => !(name in ((schema.properties as object | undefined) ?? {})));
    return allowed === false
      ? others.map((name) => `${path}.${name}: is not in the schema`)
      : others.flatMap((name) => faultsOf(value[name], allowed as Schema, `${path}.${name}`));
  },
  patternProperties: () => [],
  items: (value, schema, path) =>
    Array.isArray(value) ? value.flatMap((item, index) => faultsOf(item, schema as Schema, `${path}[${index}]`)) : [],
};

/** What about a value does not fit a schema; empty where it fits. */
export function faultsOf(value: unknown, schema: Schema, path = "$"): string[] {
  if (value === null && schema.nullable === true) return [];
  return Object.entries(schema).flatMap(([keyword, parameter]) => {
    if (ANNOTATIONS.has(keyword) || keyword === "nullable") return [];
    const rule = RULES[keyword];
    return rule ? rule(value, parameter, path, schema) : [`${path}: the checker does not know "${keyword}"`];
  });
}

/** Properties of an answer that its schema does not name, however open the schema is. */
export function undocumented(value: unknown, schema: Schema, path = "$"): string[] {
  if (Array.isArray(value)) {
    return value.flatMap((item, index) => undocumented(item, (schema.items ?? {}) as Schema, `${path}[${index}]`));
  }
  if (!isRecord(value) || schema.additionalProperties === true || schema.patternProperties) return [];
  const choices = (schema.anyOf ?? []) as Schema[];
  const chosen = choices.find((choice) => faultsOf(value, choice).length === 0);
  if (chosen) return undocumented(value, chosen, path);
  const properties = (schema.properties ?? {}) as Record<string, Schema>;
  // A record says what its values are, whatever their names.
  const others = isRecord(schema.additionalProperties) ? (schema.additionalProperties as Schema) : undefined;
  return Object.entries(value).flatMap(([name, inner]) => {
    const known = properties[name] ?? others;
    return known ? undocumented(inner, known, `${path}.${name}`) : [`${path}.${name}: is not in the document`];
  });
}
