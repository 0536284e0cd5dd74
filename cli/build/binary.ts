/** Builds dist/primer: one file that needs nothing beside it. `bun run build` */
import { join } from "node:path";
import { $ } from "bun";

const root = join(import.meta.dir, "../..");

/** The program, and what it runs as a thread: that is started by its path here. */
const entries = ["cli/main.ts", "server/features/passwords/strength-thread.ts"];

await $`${process.execPath} ${join(root, "db/build/template.ts")}`;
await $`${process.execPath} build ${entries} --compile --bytecode --format=esm --minify-whitespace --minify-syntax \
  --no-compile-autoload-bunfig --no-compile-autoload-dotenv --outfile ${join(root, "dist/primer")}`.cwd(root);
