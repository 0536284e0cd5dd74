/**
 * Writes every generated file: the README's reference, server/openapi.json, the list of migrations, the diagram of the
 * database, dashboards and alerts.
 * `bun run generate`; with --check it writes nothing and fails where one is not what it should be.
 */
import { join } from "node:path";
import { VERSION } from "../../config/version.ts";
import { migrationList } from "../../db/build/list-migrations.ts";
import { schemaDocument } from "../../db/build/schema-diagram.ts";
import { grafanaFiles } from "../../grafana/build/files.ts";
import { describeApi } from "../../server/app.ts";
import { withReference } from "./reference.ts";

const root = join(import.meta.dir, "../..");
const checking = process.argv.includes("--check");
const readmePath = join(root, "README.md");

const files: Readonly<Record<string, string>> = {
  [readmePath]: withReference(await Bun.file(readmePath).text()),
  [join(root, "server/openapi.json")]: `${JSON.stringify(await describeApi({ version: VERSION }), null, 2)}\n`,
  [join(root, "db/migrations/index.ts")]: migrationList(),
  [join(root, "db/schema/README.md")]: schemaDocument(),
  ...Object.fromEntries(Object.entries(grafanaFiles()).map(([path, content]) => [join(root, path), content])),
};

const stale: string[] = [];
for (const [path, content] of Object.entries(files)) {
  const current = await Bun.file(path)
    .text()
    .catch(() => "");
  if (current === content) continue;
  stale.push(path.slice(root.length + 1));
  if (!checking) await Bun.write(path, content);
}
if (checking && stale.length > 0) {
  process.stderr.write(`Not as generated: ${stale.join(", ")}. Run \`bun run generate\` and commit.\n`);
  process.exit(1);
}
