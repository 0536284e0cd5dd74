/** Builds dist/primer: one file that needs nothing beside it. `bun run build` */
import { join } from "node:path";
import { $ } from "bun";

const root = join(import.meta.dir, "../..");

await $`${process.execPath} ${join(root, "db/build/template.ts")}`;
await $`${process.execPath} build ${join(root, "cli/main.ts")} --compile --bytecode --format=esm --minify-whitespace --minify-syntax \
  --no-compile-autoload-bunfig --no-compile-autoload-dotenv --outfile ${join(root, "dist/primer")}`.cwd(root);
