import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { generateSecret } from "../../config/secrets.ts";
import type { Database } from "../../db/database.ts";
import { MIGRATIONS } from "../../db/migrations/index.ts";
import { openPglite } from "../../db/pglite.ts";
import { createSealer } from "../../server/features/audit/service.ts";
import { systemRandom } from "../../server/ports/random.ts";
import { startRangeService } from "../support/range-service.ts";
import { runPrimer } from "../support/server.ts";
import { freePort } from "../support/services.ts";
import { jsonOf, openScratch } from "./support/home.ts";

const scratch = openScratch();
afterAll(() => scratch.remove());

interface Finding {
  readonly check: string;
  readonly state: "ok" | "warning" | "failed";
  readonly message: string;
  readonly mend?: string;
}

const doctor = async (home: string, environment: Record<string, string> = {}) => {
  const ran = await runPrimer(["doctor", "--json", "--dir", home], { environment });
  return { ...ran, findings: jsonOf(ran).findings as Finding[], ok: jsonOf(ran).ok as boolean };
};

/** Puts another master key into a home's secrets.env. */
function changeMasterKey(home: string): void {
  const path = join(home, "secrets.env");
  const other = `PRIMER_MASTER_KEY=${generateSecret(systemRandom.bytes)}`;
  writeFileSync(path, readFileSync(path, "utf8").replace(/^PRIMER_MASTER_KEY=.*$/m, other));
}

/** Takes the job queue's tables away, as they are missing before an upgrade has been migrated. */
async function unmigrate(home: string): Promise<void> {
  const database = await openPglite(home);
  await database.query("DROP SCHEMA jobs CASCADE");
  await database.close();
}

describe("doctor", () => {
  test("a healthy home: exit 0, and every check named", async () => {
    const { exitCode, ok, findings } = await doctor(await scratch.home());
    expect({ exitCode, ok }).toEqual({ exitCode: 0, ok: true });
    const checks = ["settings", "public URL", "disk", "secrets", "database", "migrations", "clock", "keys"];
    expect(findings.map((finding) => finding.check)).toEqual(expect.arrayContaining(checks));
    expect(findings.filter((finding) => finding.state === "failed")).toEqual([]);
  });

  // While nothing is sealed the log can be changed unseen: somebody has to hear of it.
  test("says since when nothing was sealed", async () => {
    const home = await scratch.home();
    const told = async () => (await doctor(home)).findings.find(({ check }) => check === "audit chain");
    const withDatabase = async (work: (database: Database) => Promise<unknown>) => {
      const database = await openPglite(home);
      await work(database).finally(() => database.close());
    };
    await withDatabase(async (database) => {
      await database.query(
        `INSERT INTO audit_log (id, time, action, outcome, actor_kind)
         VALUES (gen_random_uuid(), now() - interval '10 minutes', 'login', 'success', 'system')`,
      );
      await createSealer(database, () => 0).seal();
    });
    expect(await told()).toBeUndefined();
    await withDatabase((database) =>
      database.query(
        `INSERT INTO audit_log (id, time, action, outcome, actor_kind)
         SELECT gen_random_uuid(), now() - make_interval(mins => ago), 'login', 'success', 'system' FROM unnest(ARRAY[3, 2]) AS ago`,
      ),
    );
    const finding = await told();
    expect(finding).toMatchObject({
      state: "warning",
      message: expect.stringContaining("3 min"),
      mend: expect.any(String),
    });
  });

  interface Broken {
    readonly name: string;
    /** Breaks the home; answers the variables to run with. */
    break(home: string): Promise<Record<string, string>> | Record<string, string>;
    readonly check: string;
  }

  const UNREACHABLE: readonly (readonly [check: string, variable: string, scheme: string])[] = [
    ["redis", "REDIS_URL", "redis"],
    ["mail", "SMTP_URL", "smtp"],
    ["metrics", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http"],
    ["traces", "OTEL_EXPORTER_OTLP_ENDPOINT", "http"],
  ];

  const BROKEN: readonly Broken[] = [
    {
      name: "secrets that others can read",
      check: "secrets",
      break: (home) => {
        chmodSync(join(home, "secrets.env"), 0o644);
        return {};
      },
    },
    {
      name: "another master key",
      check: "keys",
      break: (home) => {
        changeMasterKey(home);
        return {};
      },
    },
    {
      name: "neighbours that are not there",
      check: "redis",
      break: async () => {
        const port = await freePort();
        return Object.fromEntries(UNREACHABLE.map(([, name, scheme]) => [name, `${scheme}://u:p@127.0.0.1:${port}`]));
      },
    },
    {
      name: "migrations that are pending",
      check: "migrations",
      break: async (home) => {
        await unmigrate(home);
        return {};
      },
    },
    {
      name: "settings that are wrong",
      check: "settings",
      break: () => ({ PRIMER_SERVER__PORT: "x" }),
    },
  ];

  // Whatever is broken is one finding with the way to mend it, and exit 4.
  test.concurrent.each(BROKEN.map((entry) => [entry.name, entry] as const))(
    "%s: exit 4, with how to mend it",
    async (_name, broken) => {
      const home = await scratch.home();
      const { exitCode, ok, findings } = await doctor(home, await broken.break(home));
      expect({ exitCode, ok }).toEqual({ exitCode: 4, ok: false });
      const failed = findings.filter((finding) => finding.state === "failed");
      expect(failed.map((finding) => finding.check)).toContain(broken.check);
      for (const finding of failed) expect(finding.mend).toEqual(expect.stringMatching(/\S/));
      if (broken.check === "redis")
        expect(failed.map(({ check }) => check).sort()).toEqual(UNREACHABLE.map(([check]) => check).sort());
      else expect(failed).toHaveLength(1);
    },
  );

  // Production without the list of breached passwords is said; where it is to be asked, whether it answers.
  test("breached passwords: a warning where nobody asks in production, a finding where the service does not answer", async () => {
    const home = await scratch.home();
    const service = await startRangeService();
    const stateFor = async (environment: Record<string, string>) => {
      const { findings } = await doctor(home, environment);
      return findings.find(({ check }) => check === "breached")?.state;
    };
    const online = { PRIMER_PASSWORD__HIBP: "online", PRIMER_PASSWORD__HIBP_URL: service.url };
    try {
      expect(await stateFor({})).toBeUndefined();
      expect(
        await stateFor({ PRIMER_ENVIRONMENT: "production", PRIMER_SERVER__PUBLIC_URL: "https://login.example.org" }),
      ).toBe("warning");
      expect(await stateFor(online)).toBe("ok");
      service.behaviour = "status500";
      expect(await stateFor(online)).toBe("failed");
    } finally {
      service.stop();
    }
  });

  // Where the extension was refused the search does less than it says, which nobody would notice.
  test("a search by beginnings alone: a warning with the statements that mend it", async () => {
    const home = await scratch.home();
    const database = await openPglite(home);
    await database.query("DROP INDEX users_search_idx");
    await database.close();
    const { exitCode, findings } = await doctor(home);
    expect(exitCode).toBe(0);
    expect(findings.find(({ check }) => check === "search")).toMatchObject({
      state: "warning",
      mend: expect.stringContaining("CREATE EXTENSION"),
    });
  });

  // A folder that nobody has set up is a finding like any other, and looking at it makes nothing there.
  test("a home that is not there: exit 4, and it is still not there", async () => {
    const home = scratch.path("missing");
    const { exitCode } = await doctor(home);
    expect(exitCode).toBe(4);
    expect(existsSync(home)).toBe(false);
  });
});

describe("migrate", () => {
  let home: string;
  beforeAll(async () => {
    home = await scratch.home();
    await unmigrate(home);
  });
  const migrate = (...args: string[]) => runPrimer(["migrate", ...args, "--json", "--dir", home]);

  test("--status tells what is pending, exit 0", async () => {
    const ran = await migrate("--status");
    expect(ran.exitCode).toBe(0);
    const states = jsonOf(ran).migrations.map((migration: { state: string }) => migration.state);
    const expected = [...MIGRATIONS.map(() => "applied"), "pending"];
    expect({ pending: jsonOf(ran).pending, states }).toEqual({ pending: 1, states: expected });
  });

  // A server never runs on a schema that it was not made for.
  test("serve refuses a schema with pending migrations, exit 2", async () => {
    expect((await runPrimer(["serve", "--dir", home])).exitCode).toBe(2);
  });

  test("applies what is pending, which --status has left as it was; once", async () => {
    expect(jsonOf(await migrate()).applied).toHaveLength(1);
    expect(jsonOf(await migrate()).applied).toEqual([]);
  });

  test("where nothing is set up: says so and makes nothing", async () => {
    const missing = scratch.path("missing");
    const ran = await runPrimer(["migrate", "--status", "--dir", missing]);
    expect(ran.exitCode).not.toBe(0);
    expect(existsSync(missing)).toBe(false);
  });
});
