type Schema = Readonly<Record<string, unknown>>;

/** Texts that stand for a value, which the router takes beside the value itself; a caller need not know of them. */
const SPELLED_OUT = new Set(["integer", "numeric", "boolean", "ObjectString", "ArrayString"]);

/**
 * A schema as OpenAPI 3.0 knows it (its section "Schema Object"): routes declare theirs in a later JSON Schema, and
 * generators of clients refuse what 3.0 does not have.
 */
export function asOpenapiSchema(schema: Schema): Schema {
  const { const: only, patternProperties, examples, anyOf, ...rest } = schema;
  return {
    ...mapNested(rest),
    ...(only === undefined ? {} : { enum: [only] }),
    ...(patternProperties === undefined ? {} : { additionalProperties: anyOfPatterns(patternProperties as Schema) }),
    ...(Array.isArray(examples) ? { example: examples[0] } : {}),
    ...(Array.isArray(anyOf) ? asChoice(anyOf) : {}),
  };
}

function mapNested(schema: Schema): Schema {
  const nested: Record<string, unknown> = { ...schema };
  for (const name of ["items", "not", "additionalProperties"]) {
    if (typeof schema[name] === "object") nested[name] = asOpenapiSchema(schema[name] as Schema);
  }
  for (const name of ["allOf", "oneOf"]) {
    if (Array.isArray(schema[name])) nested[name] = schema[name].map(asOpenapiSchema);
  }
  if (typeof schema.properties === "object") {
    const properties = Object.entries(schema.properties as Record<string, Schema>);
    nested.properties = Object.fromEntries(properties.map(([name, property]) => [name, asOpenapiSchema(property)]));
  }
  return nested;
}

/** What may stand under names that are not listed. */
function anyOfPatterns(patterns: Schema): Schema | true {
  const [first = {}, ...others] = Object.values(patterns) as Schema[];
  if (others.length > 0) return asOpenapiSchema({ anyOf: [first, ...others] });
  return Object.keys(first).length === 0 || asOpenapiSchema(first);
}

/** Without the spelled-out texts, and with null as 3.0 says it; a choice of one is no choice. */
function asChoice(options: readonly Schema[]): Schema {
  const values = options.filter(({ type, format }) => !(type === "string" && SPELLED_OUT.has(String(format))));
  const kept = values.filter(({ type }) => type !== "null").map(asOpenapiSchema);
  const nullable = kept.length < values.length ? { nullable: true } : {};
  return kept.length === 1 ? { ...kept[0], ...nullable } : { anyOf: kept, ...nullable };
}
