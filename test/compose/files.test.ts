/** The files of compose/, as far as they can be looked at without a Docker engine or a cluster. */
import { describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { $ } from "bun";
import { loadSettings } from "../../config/load.ts";
import { VERSION } from "../../config/version.ts";

const root = join(import.meta.dir, "../..");
const compose = join(root, "compose");
const PRODUCTION = ["compose.production.yaml"];
const CLUSTER = [...PRODUCTION, "compose.cluster.yaml"];
const NAMES = { PRIMER_HOST: "login.example.org", GRAFANA_HOST: "grafana.example.org" };

/** A check that needs a program says so where that is missing. */
function checkedBy(program: string, what: string): boolean {
  if (Bun.which(program)) return true;
  process.stderr.write(`NOT CHECKED: ${what} (${program} is not on the PATH)\n`);
  return false;
}

interface Service {
  readonly image: string;
  readonly user?: string;
  readonly read_only?: boolean;
  readonly cap_drop?: readonly string[];
  readonly cap_add?: readonly string[];
  readonly security_opt?: readonly string[];
  readonly ports?: readonly string[];
  readonly volumes?: readonly string[];
  readonly networks?: readonly string[] | Readonly<Record<string, unknown>>;
  readonly environment?: Readonly<Record<string, string>>;
  readonly stop_grace_period?: string;
  readonly healthcheck?: { readonly disable?: boolean };
  readonly deploy?: { readonly resources?: { readonly limits?: Readonly<Record<string, unknown>> } };
}
interface Stack {
  readonly services: Readonly<Record<string, Service>>;
  readonly networks: Readonly<Record<string, { internal?: boolean } | null>>;
  readonly secrets: Readonly<Record<string, { file: string }>>;
}

const read = (name: string) => Bun.YAML.parse(readFileSync(join(compose, name), "utf8")) as Stack;
const development = read("compose.yaml");
const production = read("compose.production.yaml");
const cluster = read("compose.cluster.yaml");
/** Those that a file defines, and not those that it only adds something to. */
const servicesOf = (stack: Stack) => Object.entries(stack.services).filter(([, { image }]) => image !== undefined);

/** A name and two or three numbers, or primer's own where another registry's can stand for it. */
const VERSIONED = /^[\w./-]+:v?\d+\.\d+(\.\d+)?(-[\w-]+)?$|^\$\{PRIMER_IMAGE:-primer:\d+\.\d+\.\d+\}$/;

describe("compose", () => {
  const canCheck = checkedBy("docker-compose", "whether compose understands its files");

  test.if(canCheck).each([[["compose.yaml"]], [PRODUCTION], [CLUSTER]])("understands %j", async (files) => {
    const flags = files.flatMap((file) => ["-f", join(compose, file)]);
    const ran = await $`docker-compose ${flags} --profile setup config --quiet`
      .env({ ...process.env, ...NAMES })
      .quiet()
      .nothrow();
    expect([ran.exitCode, ran.stderr.toString()]).toEqual([0, ""]);
  });

  test("every image has a version, primer's own the one of this source", () => {
    for (const stack of [development, production, cluster]) {
      for (const [name, { image }] of servicesOf(stack)) {
        expect([name, image]).toEqual([name, expect.stringMatching(VERSIONED)]);
        if (image.includes("primer:")) expect(image).toContain(`primer:${VERSION}`);
      }
    }
  });

  // Whoever takes over one service can write nowhere but to its data, has no right of root's and cannot gain one.
  test.each([...servicesOf(production), ...servicesOf(cluster)])("%s is contained", (name, service) => {
    // A copy, since what the file says once by an anchor is one object, and the matcher writes into it.
    expect(structuredClone(service)).toMatchObject({
      read_only: true,
      cap_drop: ["ALL"],
      security_opt: ["no-new-privileges:true"],
      deploy: {
        resources: { limits: { cpus: expect.any(String), memory: expect.any(String), pids: expect.any(Number) } },
      },
    });
    if (name === "folders") return expect(service).toMatchObject({ cap_add: ["CHOWN"], network_mode: "none" });
    expect(service.cap_add).toBeUndefined();
    // The image of primer says by itself who it runs as.
    if (!service.image.includes("primer:")) expect(service.user).toMatch(/^[1-9]\d*:\d+$/);
  });

  // Only the proxy is reached from outside, and what can be reached from it cannot be reached from anywhere else.
  test("networks are segmented", () => {
    const publishing = [...servicesOf(production), ...servicesOf(cluster)].filter(([, { ports }]) => ports);
    expect(publishing.map(([name]) => name)).toEqual(["proxy"]);
    const open = Object.entries(production.networks).filter(([, network]) => !network?.internal);
    expect(open.map(([name]) => name)).toEqual(["edge", "outside"]);
    const membersOf = (network: string) =>
      Object.entries(production.services)
        .filter(([, { networks = [] }]) =>
          (Array.isArray(networks) ? networks : Object.keys(networks)).includes(network),
        )
        .map(([name]) => name);
    expect(membersOf("edge")).toEqual(["proxy"]);
    expect(membersOf("api")).toEqual(["proxy", "api-1", "api-2"]);
    expect(membersOf("dashboards")).toEqual(["proxy", "grafana"]);
    expect(membersOf("outside")).not.toContain("postgres");
    for (const [name, { ports = [] }] of servicesOf(development)) {
      for (const port of ports) expect([name, port]).toEqual([name, expect.stringMatching(/^127\.0\.0\.1:/)]);
    }
  });

  test("no secret stands in the file, and make-secrets.sh makes each one that is named", async () => {
    for (const [name, { environment = {} }] of servicesOf(production)) {
      const given = Object.entries(environment).filter(([key]) => /PASSWORD|SECRET|_KEY|PEPPER|TOKEN|_URL/.test(key));
      for (const [key, value] of given) {
        if (/PUBLIC_URL|ROOT_URL|METRICS_URL/.test(key)) continue;
        expect([name, key, value]).toEqual([name, key, expect.stringMatching(/^\/run\/secrets\//)]);
      }
    }
    const folder = mkdtempSync(join(tmpdir(), "primer-secrets-"));
    try {
      cpSync(join(compose, "make-secrets.sh"), join(folder, "make-secrets.sh"));
      await $`${folder}/make-secrets.sh login.example.org grafana.example.org`.quiet();
      const made = () =>
        Object.fromEntries(
          readdirSync(`${folder}/secrets`).map((name) => [name, readFileSync(`${folder}/secrets/${name}`, "utf8")]),
        );
      const before = made();
      await $`${folder}/make-secrets.sh login.example.org grafana.example.org`.quiet();
      expect(made()).toEqual(before);
      for (const [name, { file }] of Object.entries({ ...production.secrets, ...cluster.secrets })) {
        expect(file).toBe(`./secrets/${name}`);
        expect(Object.keys(before)).toContain(name);
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  // A container that is stopped in a hurry would cut off requests that primer lets finish.
  test("what serves or works is given time to stop, and its settings are known", () => {
    for (const name of ["api-1", "api-2", "worker"]) {
      const { stop_grace_period = "", environment = {} } = production.services[name] as Service;
      const own = Object.entries(environment).filter(([key]) => !key.endsWith("_FILE"));
      const variables = Object.fromEntries(
        own.map(([key, value]) => [key, value.replace(/\$\{PRIMER_HOST.*\}/, "login.example.org")]),
      );
      const { server } = loadSettings("/nonexistent", variables).settings;
      expect(Number.parseInt(stop_grace_period, 10) * 1000).toBeGreaterThan(server.drain_delay + server.stop_timeout);
    }
  });

  test("every file that is mounted is there", () => {
    const mounted = [development, production, cluster].flatMap((stack) =>
      Object.values(stack.services).flatMap(({ volumes = [] }) => volumes.map((volume) => volume.split(":")[0] ?? "")),
    );
    // Dashboards and alerts are generated, and looked at by tests of their own.
    const isGenerated = /^\.\.\/grafana\/(dashboards|alerts)\b/;
    const files = [...new Set(mounted.filter((path) => path.startsWith(".") && !isGenerated.test(path)))];
    expect(files.length).toBeGreaterThan(5);
    expect(files.filter((path) => !existsSync(join(compose, path)))).toEqual([]);
  });
});

describe("the collector", () => {
  const canCheck = checkedBy("otelcol", "the collector's configuration");

  test.if(canCheck)("understands its configuration", async () => {
    const ran = await $`otelcol validate --config ${compose}/collector/collector.yaml`.quiet().nothrow();
    expect([ran.exitCode, ran.stderr.toString()]).toEqual([0, ""]);
  });
});

describe("Kubernetes", () => {
  const builder = ["kustomize", "kubectl"].find((program) => Bun.which(program)) ?? "kustomize";
  const canBuild = checkedBy(builder, "whether the manifests for Kubernetes can be built");
  const canValidate = canBuild && checkedBy("kubernetes-validate", "the manifests against Kubernetes' schemas");
  const build = async (overlay: string) => {
    const words = builder === "kubectl" ? ["kustomize"] : ["build"];
    return (await $`${builder} ${words} ${compose}/kubernetes/${overlay}`.quiet()).text();
  };

  test.if(canValidate).each(["base", "production", "setup"])("%s is what the schemas say", async (overlay) => {
    const folder = mkdtempSync(join(tmpdir(), "primer-kubernetes-"));
    try {
      const file = join(folder, "all.yaml");
      writeFileSync(file, await build(overlay));
      const ran = await $`kubernetes-validate --strict -k 1.33 --quiet ${file}`.quiet().nothrow();
      expect([ran.exitCode, ran.stdout.toString() + ran.stderr.toString()]).toEqual([0, ""]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  // The same as in compose: no root, nothing to write to, no right to be gained, no key to the cluster.
  test.if(canBuild)("every pod is contained", async () => {
    type Manifest = { kind: string; spec?: { template?: { spec: Record<string, unknown> } } };
    const manifests = Bun.YAML.parse(await build("production")) as Manifest[];
    const pods = manifests.flatMap(({ spec }) => spec?.template?.spec ?? []);
    expect(pods).toHaveLength(3);
    for (const pod of pods) {
      expect(pod).toMatchObject({
        automountServiceAccountToken: false,
        securityContext: { runAsNonRoot: true, runAsUser: 65532, seccompProfile: { type: "RuntimeDefault" } },
        containers: [
          {
            image: `registry.example.org/primer:${VERSION}`,
            resources: { limits: { memory: expect.any(String) } },
            securityContext: {
              allowPrivilegeEscalation: false,
              readOnlyRootFilesystem: true,
              capabilities: { drop: ["ALL"] },
            },
          },
        ],
      });
    }
    const kinds = manifests.map(({ kind }) => kind);
    for (const kind of ["HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "Job"])
      expect(kinds).toContain(kind);
  });
});

describe("systemd", () => {
  const canCheck = checkedBy("systemd-analyze", "the units of systemd");

  // 10 is a service without any protection; a browser's is about 5.
  test.if(canCheck)("accepts the units, and finds them hardly exposed", async () => {
    const folder = mkdtempSync(join(tmpdir(), "primer-units-"));
    try {
      const names = readdirSync(join(compose, "systemd"));
      // It looks whether the program is there.
      for (const name of names) {
        const unit = readFileSync(join(compose, "systemd", name), "utf8");
        writeFileSync(join(folder, name), unit.replaceAll("/usr/local/bin/primer", process.execPath));
      }
      const paths = names.map((name) => join(folder, name));
      const ran = await $`systemd-analyze verify --man=no ${paths}`.quiet().nothrow();
      const said = ran.stderr
        .toString()
        .split("\n")
        .filter((line) => line.includes(folder));
      expect([ran.exitCode, said]).toEqual([0, []]);
      for (const path of paths) {
        const text = await $`systemd-analyze security --offline=yes --no-pager ${path}`.quiet().text();
        expect(Number(/exposure level for \S+: ([\d.]+)/.exec(text)?.[1])).toBeLessThan(2);
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe("the image", () => {
  const why = [
    process.env.TEST_PRIMER ? [] : ["no binary was built (TEST_PRIMER)"],
    process.getuid?.() === 0 ? [] : ["it takes root to make a root file system"],
    Bun.which("unshare") && existsSync("/proc/self/ns/mnt") ? [] : ["there are no namespaces here"],
  ].flat();
  if (why.length > 0) process.stderr.write(`NOT CHECKED: the root file system of the image (${why.join(", ")})\n`);

  // The image has what the binary needs, and the binary needs no more: it runs as nobody on a root that is read-only.
  test.if(why.length === 0)(
    "holds all that primer needs, with a read-only root and no user of the system's",
    async () => {
      const folder = mkdtempSync(join(tmpdir(), "primer-image-"));
      try {
        const image = join(folder, "image");
        mkdirSync(image);
        await $`sh compose/image-root.sh ${image}`.cwd(root).quiet();
        const inside = `
        mount --bind ${image} ${image} && mount -o remount,ro,bind ${image}
        mount -t tmpfs -o exec,nosuid,nodev,mode=1777 tmpfs ${image}/tmp
        mount -t tmpfs -o mode=0700,uid=65532,gid=65532 tmpfs ${image}/var/lib/primer
        mount -t proc proc ${image}/proc
        as_nobody() { env -i PRIMER_HOME=/var/lib/primer /usr/sbin/chroot --userspec=65532:65532 ${image} /primer "$@"; }
        as_nobody init --yes --algorithm ES256 >/dev/null 2>&1 && as_nobody doctor --json`;
        const ran = await $`unshare --mount --pid --fork sh -c ${inside}`.quiet().nothrow();
        expect([ran.exitCode, ran.stderr.toString()]).toEqual([0, ""]);
        const { findings } = JSON.parse(ran.stdout.toString());
        expect(findings.find(({ check }: { check: string }) => check === "hashing").state).toBe("ok");
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
  );
});
