import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { AlertName } from "../../grafana/build/alerts.ts";

/** The rules for vmalert, as the file has them. */
export const RULES = join(import.meta.dir, "../../grafana/alerts/vmalert.yml");

interface RulesFile {
  readonly groups: readonly { readonly rules: readonly { readonly alert: string; readonly expr: string }[] }[];
}

export function expressionOf(name: AlertName): string {
  const { groups } = Bun.YAML.parse(readFileSync(RULES, "utf8")) as RulesFile;
  return groups.flatMap(({ rules }) => rules).find(({ alert }) => alert === name)?.expr ?? "";
}
