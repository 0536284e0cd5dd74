/** Where a bench runs: the settings of the home that it stands in, what is in its environment, and the machine. */
import { cpus, release, totalmem } from "node:os";
import { loadSettings, type Variables } from "../../config/load.ts";
import type { Settings } from "../../config/schema.ts";
import type { CommandContext } from "../command.ts";
import type { BenchReport } from "./report.ts";

/** What of the home's settings decides how much work a request is: a scratch server is made to have the same. */
const CARRIED = [
  "password.algorithm",
  "password.memory_kib",
  "password.iterations",
  "password.bcrypt_cost",
  "password.hash_slots",
  "password.hash_queue",
  "tokens.algorithm",
  "keys.bits",
];

export function settingsOf({ home, environment }: Pick<CommandContext, "home" | "environment">) {
  const { settings, resolved } = loadSettings(home, environment);
  const stated = CARRIED.flatMap((key) => resolved.get(key) ?? []).filter(({ origin }) => origin !== "default");
  const carried = Object.fromEntries(stated.map(({ setting, raw }) => [setting.variable, String(raw)]));
  return { settings, carried };
}

/** What a shell has. Addresses of databases and servers that stand in it are not ours to touch. */
export function plainEnvironment(environment: Variables): Record<string, string> {
  const foreign = /^(PRIMER_|OTEL_|(DATABASE|DATABASE_ADMIN|REDIS|SMTP)_URL)/;
  return Object.fromEntries(
    Object.entries(environment).flatMap(([name, value]) =>
      value === undefined || foreign.test(name) ? [] : [[name, value]],
    ),
  );
}

export function machineOf(): BenchReport["machine"] {
  const [first] = cpus();
  return {
    cpu: first?.model.trim() ?? "unknown processor",
    cores: cpus().length,
    memory_mib: Math.round(totalmem() / 1024 / 1024),
    system: `${process.platform} ${release()} ${process.arch}`,
    runtime: `Bun ${Bun.version}`,
  };
}

export const hashOf = ({ password }: Pick<Settings, "password">): string =>
  password.algorithm === "bcrypt"
    ? `bcrypt cost ${password.bcrypt_cost}`
    : `argon2id m=${password.memory_kib} t=${password.iterations}`;

export const signatureOf = ({ tokens, keys }: Pick<Settings, "tokens" | "keys">): string =>
  /^[RP]S/.test(tokens.algorithm) ? `${tokens.algorithm} ${keys.bits} bits` : tokens.algorithm;
