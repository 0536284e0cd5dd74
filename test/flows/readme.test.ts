import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { withReference } from "../../cli/build/reference.ts";
import { PRIMER, plainEnvironment, type ServedHome, serveHome } from "../support/server.ts";

const readme = await Bun.file(join(import.meta.dir, "../../README.md")).text();

let served: ServedHome;
beforeAll(async () => {
  served = await serveHome();
});
afterAll(() => served.remove());

/** The shell block that follows a marker. */
function block(marker: string): string {
  const found = new RegExp(`<!-- run: ${marker} -->\n\`\`\`sh\n([\\s\\S]*?)\n\`\`\``).exec(readme);
  if (!found?.[1]) throw new Error(`README.md has no block "${marker}"`);
  return found[1];
}

// What README shows for the first login runs exactly as it stands there, but for the address and the password.
test("README's first login", async () => {
  const script = block("first login")
    .replace(/^PRIMER=.*$/m, `PRIMER=${served.url}`)
    .replace(/^PASSWORD=.*$/m, `PASSWORD='${served.password}'`);
  const shell = Bun.spawn(["sh", "-eu", "-c", script], { env: plainEnvironment(), stdout: "pipe", stderr: "pipe" });
  const printed = await new Response(shell.stdout).text();
  expect(await shell.exited).toBe(0);
  expect(printed).toContain('"active":true');
  expect(printed).toContain('"username":"admin"');
  expect(printed).toContain("204\n401");
});

// And so does what it shows of introspection and revocation; `primer` is the program from source.
test("README's introspection and revocation", async () => {
  const script = block("introspection")
    .replace(/^PRIMER=.*$/m, `PRIMER=${served.url}\nprimer() { ${PRIMER.join(" ")} "$@"; }`)
    .replace(/^PASSWORD=.*$/m, `PASSWORD='${served.password}'`);
  const env = plainEnvironment({ PRIMER_HOME: served.home });
  const shell = Bun.spawn(["sh", "-eu", "-c", script], { env, stdout: "pipe", stderr: "pipe" });
  const printed = await new Response(shell.stdout).text();
  expect(await shell.exited).toBe(0);
  expect(printed).toMatch(/^{"active":true,.*"username":"admin".*}{"active":false}$/);
});

// The tables of commands and settings say what the program says.
test("README's reference is the generated one", () => {
  expect(withReference(readme)).toBe(readme);
});
