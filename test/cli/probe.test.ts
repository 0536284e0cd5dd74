import { afterAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { runPrimer, serveHome } from "../support/server.ts";
import { ADMIN, jsonOf, openScratch } from "./support/home.ts";
import { passwordFits } from "./support/installation.ts";

const scratch = openScratch();
afterAll(() => scratch.remove());

// A container is healthy while its server is ready, and not for a moment longer.
test("probe: exit 0 while the server is ready, 1 where something else answers, 3 where nothing does", async () => {
  const served = await serveHome();
  const probe = (port: string) =>
    runPrimer(["probe", "--json"], {
      environment: { PRIMER_HOME: served.home, PRIMER_SERVER__HOST: "0.0.0.0", PRIMER_SERVER__PORT: port },
    });
  const { port } = new URL(served.url);
  const ready = await probe(port);
  expect([ready.exitCode, jsonOf(ready)]).toEqual([0, { ready: true, url: `http://127.0.0.1:${port}/readyz` }]);
  const other = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("", { status: 503 }) });
  expect((await probe(String(other.port))).exitCode).toBe(1);
  await other.stop(true);
  await served.remove();
  expect((await probe(port)).exitCode).toBe(3);
});

// A password in a file is in no list of processes and in no log.
test("init takes the administrator's password from a file, and shows it nowhere", async () => {
  const [home, file] = [scratch.path("home"), join(scratch.folder, "password")];
  writeFileSync(file, `${ADMIN.password}\n`);
  const init = (...more: string[]) =>
    runPrimer(["init", "--yes", "--algorithm", "ES256", "--dir", home, ...more, "--admin-password-file", file]);
  const made = await init("--json");
  expect([made.exitCode, jsonOf(made).admin.password]).toEqual([0, null]);
  expect(made.stdout + made.stderr).not.toContain(ADMIN.password);
  expect((await init()).exitCode).toBe(0);
  expect((await init("--admin-password-stdin")).exitCode).toBe(2);
  const other = ["init", "--yes", "--dir", scratch.path("other"), "--admin-password-file", `${file}.missing`];
  expect((await runPrimer(other)).exitCode).toBe(2);
  expect(await passwordFits(home, ADMIN.username, ADMIN.password)).toBe(true);
});
