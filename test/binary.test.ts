import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { VERSION } from "../config/version.ts";
import { jsonOf } from "./cli/support/home.ts";
import { type Serving, serve } from "./cli/support/serve.ts";
import { city, geoFile } from "./support/geo-file.ts";
import { type Ran, runPrimer } from "./support/server.ts";

const built = join(import.meta.dir, "../dist/primer");
const folder = mkdtempSync(join(tmpdir(), "primer-binary-"));
const binary = join(folder, "primer");
/** By default the key has 4096 bits, which takes seconds to make; the long form makes that one. */
const KEY = process.env.TEST_FULL ? [] : ["--key-bits", "3072"];
const VERSION_RUNS = 20;

/** The binary in its folder, with no more variables than it needs: none. */
const run = (...args: string[]): Promise<Ran> =>
  runPrimer(args, { primer: [binary], cwd: folder, environment: { PATH: "", HOME: "" } });

beforeAll(() => {
  if (!existsSync(built))
    throw new Error("There is no dist/primer: `bun run build` makes it, `bun run test` does so first");
  copyFileSync(built, binary);
  chmodSync(binary, 0o755);
  // What lies in the folder is not the program's: no file may change what it does.
  writeFileSync(join(folder, "hostile.ts"), 'await Bun.write("was-here", ""); process.exit(99);');
  writeFileSync(join(folder, "bunfig.toml"), 'preload = ["./hostile.ts"]\n[run]\npreload = ["./hostile.ts"]\n');
  writeFileSync(
    join(folder, ".env"),
    "PRIMER_SERVER__PORT=broken\nPRIMER_NO__SUCH=1\nDATABASE_URL=postgres://nowhere:1/x\n",
  );
  const thread = join(folder, "server/features/passwords/strength-thread");
  mkdirSync(dirname(thread), { recursive: true });
  for (const end of ["ts", "js"]) copyFileSync(join(folder, "hostile.ts"), `${thread}.${end}`);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Memory that a process has in RAM, in MiB. */
const residentMib = (pid: number) =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;

test("--version says the version, quickly", async () => {
  const times: number[] = [];
  for (let index = 0; index < VERSION_RUNS; index++) {
    const began = performance.now();
    expect(await run("--version")).toEqual({ exitCode: 0, stdout: `${VERSION}\n`, stderr: "" });
    times.push(performance.now() - began);
  }
  const median = times.sort((a, b) => a - b)[VERSION_RUNS / 2] ?? Number.NaN;
  process.stdout.write(`--version of the binary: ${median.toFixed(0)} ms (median of ${VERSION_RUNS} runs)\n`);
  expect(median).toBeLessThan(500);
});

// One file in an empty folder is a whole installation: nothing beside it is needed, nothing that lies there is heeded.
describe("the binary alone in a folder", () => {
  const home = join(folder, "primer-data");
  let password = "";
  let serving: Serving;

  beforeAll(async () => {
    const init = await run("init", "--yes", "--json", ...KEY);
    if (init.exitCode !== 0) throw new Error(`init ended with ${init.exitCode}: ${init.stderr}`);
    password = jsonOf(init).admin.password;
    const began = performance.now();
    serving = await serve(home, { primer: [binary], cwd: folder, environment: { PATH: "" } });
    process.stdout.write(`serve of the binary was ready after ${(performance.now() - began).toFixed(0)} ms\n`);
  });
  afterAll(async () => {
    expect(await serving.stop()).toBe(0);
  });

  const api = async (method: string, path: string, options: { token?: string; body?: object } = {}) => {
    const response = await fetch(`${serving.url}${path}`, {
      method,
      headers: {
        ...(options.token ? { authorization: `Bearer ${options.token}` } : {}),
        ...(options.body ? { "content-type": "application/json" } : {}),
      },
      ...(options.body ? { body: JSON.stringify(options.body) } : {}),
    });
    const text = await response.text();
    return { status: response.status, text, body: text.startsWith("{") ? JSON.parse(text) : undefined };
  };

  test("little memory once it is idle", async () => {
    const began = performance.now();
    while (residentMib(serving.pid) >= 190 && performance.now() - began < 20_000) await Bun.sleep(100);
    const resident = residentMib(serving.pid);
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    process.stdout.write(`serve of the binary has ${resident.toFixed(0)} MiB in memory, idle for ${seconds} s\n`);
    expect(resident).toBeGreaterThan(0);
    expect(resident).toBeLessThan(200);
  });

  test("login, verify, refresh, logout; then the tokens are dead", async () => {
    const login = await api("POST", "/api/v1/auth/login", { body: { username: "admin", password } });
    expect(login.status).toBe(200);
    const verified = await api("GET", "/api/v1/auth/verify", { token: login.body.access_token });
    expect(verified).toMatchObject({ status: 200, body: { active: true, username: "admin", roles: ["admin"] } });
    const refreshed = await api("POST", "/api/v1/auth/refresh", { body: { refresh_token: login.body.refresh_token } });
    expect(refreshed.status).toBe(200);
    const token = refreshed.body.access_token;
    expect((await api("GET", "/api/v1/auth/verify", { token })).status).toBe(200);
    expect((await api("POST", "/api/v1/auth/logout", { token })).status).toBe(204);
    for (const dead of [token, login.body.access_token]) {
      expect((await api("GET", "/api/v1/auth/verify", { token: dead })).status).toBe(401);
    }
    const again = await api("POST", "/api/v1/auth/refresh", { body: { refresh_token: refreshed.body.refresh_token } });
    expect(again.status).toBe(401);
  });

  test.each(["/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/json"])(
    "%s is in it",
    async (path) => {
      const answer = await api("GET", path);
      expect(answer.status).toBe(200);
      expect(answer.text.length).toBeGreaterThan(100);
    },
  );

  test.each(["/livez", "/readyz", "/api/v1/health", "/.well-known/jwks.json"])("%s answers", async (path) => {
    expect((await api("GET", path)).status).toBe(200);
  });

  test("doctor finds nothing wrong, and users can be searched, while it serves", async () => {
    const search = run("users", "list", "--query", "dmi", "--json"); // by an extension that has to be in it
    const [doctor, list] = await Promise.all([run("doctor", "--json"), search]);
    expect({ exitCode: doctor.exitCode, ...jsonOf(doctor) }).toMatchObject({ exitCode: 0, ok: true });
    expect({ exitCode: list.exitCode, users: jsonOf(list).data.length }).toEqual({ exitCode: 0, users: 1 });
  });

  // What the policy needs is in the file: dictionaries, and the reader of the list of breached passwords.
  test.each([
    ["passwordpassword", 2],
    ["Winter2025Winter2025", 2],
    ["violet tractor nineteen", 0],
  ])("the password policy is in it: %s is exit %d", async (typed, exitCode) => {
    const name = `user-${typed.length}`;
    const args = ["users", "create", name, "--email", `${name}@example.org`, "--password-stdin"];
    const ran = await runPrimer(args, { primer: [binary], cwd: folder, input: typed, environment: { PATH: "" } });
    expect(ran).toMatchObject({ exitCode });
  });

  test("the reader of GeoIP files is in it", async () => {
    const check = (bytes: Uint8Array) => {
      writeFileSync(join(folder, "places.mmdb"), bytes);
      const environment = { PATH: "", PRIMER_ACCOUNTS__GEOIP_FILE: join(folder, "places.mmdb") };
      return runPrimer(["config", "check"], { primer: [binary], cwd: folder, environment });
    };
    const file = geoFile({ "1.0.0.0/8": city("Sydney", "Australia", [-33.87, 151.21], 20) });
    expect(await check(file)).toMatchObject({ exitCode: 0 });
    expect(await check(file.subarray(0, 200))).toMatchObject({ exitCode: 2 });
  });

  test("hibp import works in it", async () => {
    writeFileSync(join(folder, "list.txt"), `${"0".repeat(40)}:1\n`);
    expect(jsonOf(await run("hibp", "import", "list.txt", "--json"))).toMatchObject({ passwords: 1 });
  });

  // The texts of mails are in it.
  test("mails can be made", async () => {
    const { exitCode, stdout } = await run("mail", "preview", "new_sign_in");
    expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: expect.stringContaining("Hello ada,") });
  });

  test("commands that need no home work too", async () => {
    const [openapi, completions] = await Promise.all([run("openapi"), run("completions", "bash")]);
    expect(openapi.exitCode).toBe(0);
    expect(jsonOf(openapi).info.version).toBe(VERSION);
    expect(completions).toMatchObject({ exitCode: 0, stderr: "" });
  });

  test("nothing that lay in the folder was run", () => {
    expect(existsSync(join(folder, "was-here"))).toBe(false);
  });
});
