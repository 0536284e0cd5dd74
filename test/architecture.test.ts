import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { Glob } from "bun";

const root = join(import.meta.dir, "..");

/** In the order in which imports may run: each may use itself and what stands before it. */
const LAYERS = ["config", "db", "server", "worker", "cli"] as const;

interface Import {
  readonly from: string;
  /** A path from the root of the repository, or a package's name. */
  readonly to: string;
  /** Types only: it is gone before the program runs. */
  readonly typeOnly: boolean;
  /** Loaded when the line is reached and not before (or a type that is named where it is used). */
  readonly lazy: boolean;
}

const files = [...new Glob(`{${LAYERS.join(",")}}/**/*.ts`).scanSync({ cwd: root })].sort();
const isBuildStep = (path: string) => /^(db|cli|grafana)\/build\//.test(path);

/** The text without comments, so that a word in a sentence is no use of it. */
function codeOf(path: string): string {
  const text = readFileSync(join(root, path), "utf8").replace(/^#!.*/, "");
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|[\s;{(,])\/\/.*$/gm, "$1");
}

const IMPORT = /\b(?:import|export)\s+(type\s)?(?:[\w*{][^;'"]*?\sfrom\s+)?"([^"]+)"/g;
const LAZY_IMPORT = /\bimport\(\s*"([^"]+)"\s*\)/g;

function importsOf(path: string): Import[] {
  const code = codeOf(path);
  const target = (specifier: string) =>
    specifier.startsWith(".") ? relative(root, join(root, dirname(path), specifier)) : specifier;
  const found = [...code.matchAll(IMPORT)].map(([statement, type, specifier = ""]) => {
    const names = /\{([^}]*)\}/
      .exec(statement)?.[1]
      ?.split(",")
      .filter((name) => name.trim() !== "");
    const onlyTypes = names !== undefined && names.length > 0 && names.every((name) => name.trim().startsWith("type "));
    return { from: path, to: target(specifier), typeOnly: type !== undefined || onlyTypes, lazy: false };
  });
  const lazy = [...code.matchAll(LAZY_IMPORT)].map(([, specifier = ""]) => {
    return { from: path, to: target(specifier), typeOnly: false, lazy: true };
  });
  return [...found, ...lazy];
}

const imports = files.flatMap(importsOf);
const layerOf = (path: string) => LAYERS.findIndex((layer) => path.startsWith(`${layer}/`));
const featureOf = (path: string) => /^server\/features\/([^/]+)\//.exec(path)?.[1];
const shown = ({ from, to }: Import) => `${from} → ${to}`;

/** Where a pattern stands in the code of files that are not excepted. */
function uses(pattern: RegExp, allowed: (path: string) => boolean): string[] {
  return files
    .filter((path) => !allowed(path))
    .flatMap((path) => {
      const lines = codeOf(path).split("\n");
      return lines.flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : []));
    });
}

test("the imports that were read are those that the transpiler sees", () => {
  expect(files.length).toBeGreaterThan(50);
  const transpiler = new Bun.Transpiler({ loader: "ts" });
  for (const path of files) {
    const seen = transpiler.scanImports(codeOf(path)).map((found) => found.path);
    const read = importsOf(path).map(({ to }) => to);
    const missed = seen
      .map((specifier) =>
        specifier.startsWith(".") ? relative(root, join(root, dirname(path), specifier)) : specifier,
      )
      .filter((target) => !read.includes(target));
    expect({ path, missed }).toEqual({ path, missed: [] });
  }
  const gone = imports.filter(({ to }) => layerOf(to) >= 0 && !to.includes("$") && !existsSync(join(root, to)));
  expect(gone.map(shown)).toEqual([]);
});

// A folder of tests that nobody runs would look like tests that pass.
test("every folder of tests is run", () => {
  const runner = readFileSync(join(root, "test/support/run.ts"), "utf8");
  const found = [...new Glob("test/**/*.test.ts").scanSync({ cwd: root })];
  const places = new Set(found.map((path) => path.split("/").slice(0, 2).join("/")));
  expect([...places].filter((place) => !runner.includes(`"${place}"`))).toEqual([]);
});

describe("which way imports run", () => {
  // config ← db ← server ← worker, and cli above all: what is below can be understood, tested and reused without what is above.
  test("no layer imports from one above it, not even a type", () => {
    const upward = imports.filter(({ from, to }) => layerOf(to) > layerOf(from) && !isBuildStep(from));
    expect(upward.map(shown)).toEqual([]);
  });

  test("nothing of the program imports from its tests or build steps", () => {
    const wrong = imports.filter(
      ({ from, to }) => to.startsWith("test/") || (isBuildStep(to) && /\.ts$/.test(to) && !isBuildStep(from)),
    );
    expect(wrong.map(shown)).toEqual([]);
  });

  test("the worker uses services and ports of the server, never its HTTP side", () => {
    const wrong = imports.filter(
      ({ from, to }) => from.startsWith("worker/") && /^server\/(http\/|app\.ts|.*\/(routes|schema)\.ts)/.test(to),
    );
    expect(wrong.map(shown)).toEqual([]);
  });

  test("a feature uses another feature through its service.ts alone", () => {
    const wrong = imports.filter(({ from, to }) => {
      const [own, other] = [featureOf(from), featureOf(to)];
      return own !== undefined && other !== undefined && own !== other && !to.endsWith("/service.ts");
    });
    expect(wrong.map(shown)).toEqual([]);
  });

  // The HTTP framework stays at the edge: services run without it.
  test("elysia is imported at the edge of the server alone", () => {
    const edge =
      /^server\/(app\.ts|start\.ts|http\/.*|features\/[^/]+\/(routes|schema)\.ts|features\/docs\/openapi\.ts)$/;
    const wrong = imports.filter(({ from, to }) => /^(elysia|@elysiajs\/.*)(\/|$)/.test(to) && !edge.test(from));
    expect(wrong.map(shown)).toEqual([]);
  });

  test("database drivers are imported in db/ alone", () => {
    const wrong = imports.filter(
      ({ from, to }) =>
        /^(postgres|@electric-sql\/pglite|pg-boss|ioredis|bun:sqlite)(\/|$)/.test(to) && !from.startsWith("db/"),
    );
    expect(wrong.map(shown)).toEqual([]);
  });

  // Lazy imports make no circle when modules are loaded; types are gone by then.
  test("there are no circles", () => {
    const edges = new Map<string, string[]>();
    for (const { from, to, lazy, typeOnly } of imports) {
      if (!lazy && !typeOnly && layerOf(to) >= 0) edges.set(from, [...(edges.get(from) ?? []), to]);
    }
    expect(circlesIn(edges)).toEqual([]);
  });

  test("commands load what does the work only when they run", () => {
    const eager = imports.filter(({ from, to, lazy, typeOnly }) => {
      return (
        ["cli/main.ts", "cli/commands.ts", "cli/program.ts"].includes(from) &&
        !lazy &&
        !typeOnly &&
        /^(server|db|cli\/commands)\//.test(to)
      );
    });
    expect(eager.map(shown)).toEqual([]);
  });
});

/** Every circle, as the path around it. */
function circlesIn(edges: ReadonlyMap<string, readonly string[]>): string[] {
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    const seen = trail.indexOf(path);
    if (seen >= 0) circles.push([...trail.slice(seen), path].join(" → "));
    if (seen >= 0 || done.has(path)) return;
    for (const next of edges.get(path) ?? []) visit(next, [...trail, path]);
    done.add(path);
  };
  for (const path of edges.keys()) visit(path, []);
  return circles;
}

test("a circle would be found", () => {
  const edges = new Map([
    ["a", ["b"]],
    ["b", ["c"]],
    ["c", ["a"]],
  ]);
  expect(circlesIn(edges)).toEqual(["a → b → c → a"]);
});

// What comes from outside comes in at one place each, so that every test can hold it.
describe("what comes in through one place", () => {
  test("variables of the process, in config/ and cli/main.ts", () => {
    const allowed = (path: string) => path.startsWith("config/") || path === "cli/main.ts" || isBuildStep(path);
    expect(uses(/\b(process|Bun|import\.meta)\.env\b/, allowed)).toEqual([]);
  });

  test("the time, through the clock", () => {
    const allowed = (path: string) => path.startsWith("server/ports/") || isBuildStep(path);
    expect(uses(/\bDate\.now\(|\bnew Date\(\s*\)|\bDate\(\s*\)/, allowed)).toEqual([]);
  });

  test("randomness, through its port", () => {
    const allowed = (path: string) => path.startsWith("server/ports/") || isBuildStep(path);
    const sources = /\bMath\.random\b|\bgetRandomValues\b|\brandomUUID|\brandomBytes\b|\brandomInt\b/;
    expect(uses(sources, allowed)).toEqual([]);
  });

  // The embedded database swallows whatever is thrown once it has panicked, and a job that never pauses lets nothing be
  // thrown, so there alone the process ends at once. The signal 0 ends nothing: it asks whether a process is there.
  test("the end of the process, in cli/main.ts", () => {
    const allowed = (path: string) =>
      ["cli/main.ts", "db/pglite.ts", "worker/end-if-blocked.ts"].includes(path) || isBuildStep(path);
    const ends = /\bprocess\.(exit|abort|reallyExit|kill(?!\(\w+, 0\)))\b|\bprocess\.exitCode\s*=/;
    expect(uses(ends, allowed)).toEqual([]);
  });
});
