import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Serving, serve } from "../cli/support/serve.ts";
import { follow } from "../support/revocations.ts";
import { plainEnvironment, runPrimer } from "../support/server.ts";
import { freePort } from "../support/services.ts";

const root = join(import.meta.dir, "../..");
const MAX_LINES = 30;
const folder = mkdtempSync(join(tmpdir(), "primer-verifier-"));
const home = join(folder, "home");
const children: { kill(): void }[] = [];

let password = "";
let primer: Serving;

beforeAll(async () => {
  const init = await runPrimer(["init", "--yes", "--json", "--dir", home]);
  if (init.exitCode !== 0) throw new Error(`init ended with ${init.exitCode}: ${init.stderr}`);
  password = JSON.parse(init.stdout).admin.password;
  primer = await serve(home);
});
afterAll(async () => {
  for (const child of children) child.kill();
  await primer.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function program(): Promise<string> {
  const readme = await Bun.file(join(root, "README.md")).text();
  const found = /<!-- run: verify tokens -->\n```js\n([\s\S]*?)\n```/.exec(readme)?.[1];
  if (!found) throw new Error("README.md has no block that verifies tokens");
  return found;
}

/** Runs README's program as it stands there, but for the two addresses. @returns where it listens */
async function startVerifier(): Promise<string> {
  const port = await freePort();
  const text = (await program()).replace("http://127.0.0.1:8080", primer.url).replace("3000", String(port));
  const path = join(folder, "verifier.mjs");
  await Bun.write(path, text);
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
  children.push(
    Bun.spawn([process.execPath, path], { env: plainEnvironment(), stdio: ["ignore", "ignore", "ignore"] }),
  );
  return `http://127.0.0.1:${port}`;
}

async function call(path: string, options: { token?: string; body?: unknown } = {}) {
  const response = await fetch(`${primer.url}/api/v1/auth${path}`, {
    method: "POST",
    headers: {
      ...(options.body === undefined ? {} : { "content-type": "application/json" }),
      ...(options.token ? { authorization: `Bearer ${options.token}` } : {}),
    },
    ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
  });
  const text = await response.text();
  return text === "" ? {} : JSON.parse(text);
}

const login = async (): Promise<string> =>
  (await call("/login", { body: { username: "admin", password } })).access_token;

async function until(holds: () => Promise<boolean>, withinMs: number): Promise<number> {
  const began = performance.now();
  while (!(await holds())) {
    if (performance.now() - began > withinMs) throw new Error(`Not within ${withinMs} ms`);
    await Bun.sleep(20);
  }
  return performance.now() - began;
}

// README's program is short, and refuses the tokens of an ended session within two seconds, also after primer was
// restarted; what is no token, or was changed, it never takes.
test("README's service that verifies tokens", async () => {
  expect((await program()).split("\n").length).toBeLessThanOrEqual(MAX_LINES);
  const service = await startVerifier();
  const statusOf = async (token?: string): Promise<number> => {
    const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
    return (await fetch(service, { headers }).catch(() => undefined))?.status ?? 0;
  };
  const accepts = (token: string) => async () => (await statusOf(token)) === 200;
  const refuses = (token: string) => async () => (await statusOf(token)) === 401;
  const [first, second, third] = [await login(), await login(), await login()];
  await until(accepts(first), 10_000);

  await call("/logout", { token: first });
  await until(refuses(first), 2000);
  expect(await statusOf(second)).toBe(200);

  const port = Number(new URL(primer.url).port);
  const before = await follow(fetch(`${primer.url}/api/v1/revocations/stream`));
  await before.untilEvents(1);
  const stopping = performance.now();
  expect(await primer.stop()).toBe(0);
  expect(await before.ended).toBe("ended");
  expect(performance.now() - stopping).toBeLessThan(5000);
  primer = await serve(home, { port });

  await call("/logout", { token: second });
  // Longer by the second that it waits before it connects again.
  await until(refuses(second), 4000);
  expect(await statusOf(first)).toBe(401);
  await until(accepts(third), 2000);
  await call("/logout", { token: third });
  await until(refuses(third), 2000);

  const list = (await (await fetch(`${primer.url}/api/v1/revocations`)).json()).revocations;
  const [head, body, signature] = (await login()).split(".");
  const forged = [
    `${head}.${body}.${signature?.replace(/^./, (letter) => (letter === "A" ? "B" : "A"))}`,
    list,
    "a.b.c",
  ];
  for (const token of [undefined, ...forged]) expect(await statusOf(token)).toBe(401);
}, 60_000);

// A quiet stream says every ten seconds that it is there, so that neither side takes it for dead.
test("a quiet stream is kept open", async () => {
  const following = await follow(fetch(`${primer.url}/api/v1/revocations/stream`));
  await following.untilEvents(1);
  await until(async () => following.comments.length > 0, 12_000);
  await following.leave();
});
