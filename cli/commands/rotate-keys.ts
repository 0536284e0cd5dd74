import { confirm, isCancel } from "@clack/prompts";
import { failed, misused } from "../../config/errors.ts";
import { loadSettings } from "../../config/load.ts";
import { readSecrets } from "../../config/secrets.ts";
import { countPasswordsByPepper, type KeyStage, listKeyStages, lockKeys } from "../../db/queries/keys.ts";
import {
  activationOf,
  advanceKeys,
  JWKS_MAX_AGE_SECONDS,
  type Pace,
  PICK_UP_MS,
  rotateMasterKey,
  type Staged,
  stageKey,
  undoRotation,
} from "../../server/features/keys/service.ts";
import type { UserDeps } from "../../server/features/users/service.ts";
import { systemRandom } from "../../server/ports/random.ts";
import type { CommandContext, Options, Outcome } from "../command.ts";
import { addMasterKey } from "../installation-files.ts";
import { table } from "../io.ts";
import { withUserDeps } from "../workspace.ts";

/** In the order in which they are rotated: the master key last, so that it seals what the others have made. */
const KINDS = ["signing", "refresh", "pepper", "master"] as const;
type Kind = (typeof KINDS)[number];
const BY_OPERATOR = { kind: "operator" } as const;

/** What one kind of key comes to. */
interface Rotated {
  readonly what: Kind;
  readonly done: boolean;
  readonly activates_at: string | null;
  readonly text: string;
}

/** On a terminal, what cannot be undone is asked about; elsewhere --yes is needed. */
export async function ask(context: CommandContext): Promise<Options> {
  const { options } = context;
  const pace = paceOf(options);
  if (pace === "staged" || options.yes || options.dryRun || options.status || options.undo) return options;
  const sure = await confirm({ message: `${CONSEQUENCE[pace]} Go on?`, initialValue: false, output: process.stderr });
  if (isCancel(sure) || !sure) throw failed("Cancelled; nothing was changed.");
  return { ...options, yes: true };
}

/** Changes keys, or tells how they stand. */
export async function run(context: CommandContext): Promise<Outcome> {
  const { options } = context;
  const kinds = kindsOf(options.what);
  const pace = paceOf(options);
  const modes = ["status", "undo", "now", "emergency"].filter((name) => options[name]);
  if (modes.length > 1) throw misused(`--${modes.join(" and --")} do not go together.`);
  if (options.status) return withUserDeps(context, statusOf);
  if (pace !== "staged" && !options.yes && !options.dryRun) {
    throw misused(`--${pace} needs --yes. ${CONSEQUENCE[pace]}`, "Add --yes, or --dry-run to see what would be done.");
  }
  for (const kind of kinds) assertPossible(kind, pace, Boolean(options.undo));
  return withUserDeps(context, async (deps) => {
    const rotated: Rotated[] = [];
    for (const kind of kinds) rotated.push(await rotateOne(context, deps, kind, pace));
    const keys = (await listKeyStages(deps.db.orm)).map(viewOf);
    return {
      json: { dry_run: Boolean(options.dryRun), rotated: rotated.map(({ text, ...rest }) => rest), keys },
      text: rotated.map(({ what, text }) => `${what}: ${text}\n`).join(""),
    };
  });
}

const CONSEQUENCE = {
  now: "Only verifiers that fetch the key set again when they meet an unknown kid will accept new tokens at once; others refuse them until their copy is old.",
  emergency: "Every token made with the keys before is refused at once, and sessions must refresh.",
} as const;

function kindsOf(value: unknown): Kind[] {
  const names = typeof value === "string" ? value.split(",").map((name) => name.trim()) : ["signing"];
  const kinds = KINDS.filter((kind) => names.includes(kind));
  if (kinds.length === new Set(names).size) return kinds;
  throw misused(`--what: expected any of ${KINDS.join(", ")}, separated by commas, not ${value}.`);
}

const paceOf = (options: Options): Pace => (options.emergency ? "emergency" : options.now ? "now" : "staged");

function assertPossible(kind: Kind, pace: Pace, undo: boolean): void {
  if (kind === "master" && undo) {
    throw misused(
      "A master key is not taken back.",
      "Run `primer rotate-keys --what master` again: the next one replaces it.",
    );
  }
  if (pace === "emergency" && (kind === "master" || kind === "pepper")) {
    throw misused(
      `--emergency is for the keys of tokens, not for ${kind}: nothing that is out there bears it.`,
      `\`primer rotate-keys --what ${kind}\` replaces it at once.`,
    );
  }
}

async function rotateOne(context: CommandContext, deps: UserDeps, kind: Kind, pace: Pace): Promise<Rotated> {
  if (kind === "master") return rotateMaster(context, deps, pace);
  if (context.options.dryRun) return dryRun(deps, kind, pace, Boolean(context.options.undo));
  if (context.options.undo) {
    const active = await undoRotation(deps, kind, BY_OPERATOR);
    return { what: kind, done: true, activates_at: null, text: `taken back; ${active} is the active key` };
  }
  if (kind === "signing") context.io.note("Making a signing key; this takes some seconds.\n");
  const at = await stageKey(deps, kind, pace, BY_OPERATOR);
  const wait = at.getTime() - deps.clock.now().getTime();
  if (wait > PICK_UP_MS) {
    return { what: kind, done: false, activates_at: at.toISOString(), text: stagedText(at) };
  }
  await deps.clock.sleep(Math.max(0, wait));
  await advanceKeys(deps);
  return { what: kind, done: true, activates_at: at.toISOString(), text: doneText(kind, pace) };
}

const stagedText = (at: Date) =>
  `the next key is published; it signs from ${at.toISOString()} on. Running servers see to that by themselves.`;

function doneText(kind: Staged, pace: Pace): string {
  if (pace === "emergency" && kind === "refresh") return "a new key is active; everybody must log in again.";
  if (pace === "emergency") {
    return `a new key is active, and none of ours accepts the old ones. Others may trust the old ones until they fetch the key set again: ${JWKS_MAX_AGE_SECONDS / 60} minutes where they follow its Cache-Control, as long as they keep it where they do not.`;
  }
  if (kind === "pepper") return "a new key is active; each password moves to it at its next login.";
  return "a new key is active; the old one counts until nothing bears it any more.";
}

async function dryRun(deps: UserDeps, kind: Staged, pace: Pace, undo: boolean): Promise<Rotated> {
  const stages = (await listKeyStages(deps.db.orm)).filter((key) => key.purpose === kind);
  const next = stages.find((key) => key.state === "next");
  const active = stages.find((key) => key.state === "active");
  if (undo) {
    const text = next ? `would withdraw ${next.keyId}` : `would make the key before ${active?.keyId} active again`;
    return { what: kind, done: false, activates_at: null, text };
  }
  const now = deps.clock.now();
  const fresh = activationOf(deps.settings, kind, pace, now);
  const planned = next?.activatesAt && pace === "staged" ? next.activatesAt : fresh;
  const made = next && pace !== "emergency" ? `would go on with ${next.keyId}` : "would make a new key";
  const text = `${made}, active from ${planned.toISOString()} on, in place of ${active?.keyId ?? "that of secrets.env"}`;
  return { what: kind, done: false, activates_at: planned.toISOString(), text };
}

async function rotateMaster(context: CommandContext, deps: UserDeps, pace: Pace): Promise<Rotated> {
  const current = deps.secrets.master[0].id;
  const load = () => loadSettings(context.home, context.environment);
  const isNew = () => readSecrets(load().variables).master[0].id !== current;
  if (context.options.dryRun) {
    const text = `would seal everything that ${current} has sealed under ${isNew() ? "the new key in secrets.env" : "a new key"}`;
    return { what: "master", done: false, activates_at: null, text };
  }
  // One at a time: of two runs in one home, the second goes on with the key that the first has kept.
  await deps.db.change(async (tx) => {
    await lockKeys(tx);
    if (!isNew()) addMasterKey(context.home, context.environment, systemRandom.bytes);
  });
  const next = readSecrets(load().variables).master[0];
  const forgetAfter = pace === "now" ? 0 : deps.settings.keys.publish_ahead;
  const resealed = await rotateMasterKey(deps, next, forgetAfter, BY_OPERATOR);
  const until = new Date(deps.clock.now().getTime() + forgetAfter).toISOString();
  const text = `${resealed} values are sealed under ${next.id}. Copy secrets.env to every other node before ${until}; running servers have the key already. Keep the old key: backups from before need it.`;
  return { what: "master", done: true, activates_at: null, text };
}

const iso = (date: Date | null) => date?.toISOString() ?? null;

const viewOf = (key: KeyStage) => ({
  kind: key.purpose,
  id: key.keyId,
  algorithm: key.algorithm,
  state: key.state,
  created_at: iso(key.createdAt),
  activates_at: iso(key.activatesAt),
  activated_at: iso(key.activatedAt),
  retiring_at: iso(key.retiringAt),
  retires_at: iso(key.retiresAt),
  retired_at: iso(key.retiredAt),
});

/** Every key; for people those that still count, and what happens to them next. */
async function statusOf(deps: UserDeps): Promise<Outcome> {
  const stages = await listKeyStages(deps.db.orm);
  const passwords = await countPasswordsByPepper(deps.db.orm);
  const master = deps.secrets.master[0].id;
  const rows = stages
    .filter((key) => key.state !== "retired")
    .map((key) => [
      key.purpose,
      key.keyId,
      key.algorithm ?? "",
      key.state,
      (key.retiringAt ?? key.activatedAt ?? key.createdAt).toISOString(),
      nextStepOf(key),
    ]);
  const counted = passwords.map(({ pepperId, count }) => `${count} on ${pepperId ?? "none (imported)"}`).join(", ");
  return {
    json: {
      master_key_id: master,
      pepper_id: deps.secrets.pepper[0].id,
      passwords_by_pepper: Object.fromEntries(passwords.map(({ pepperId, count }) => [pepperId ?? "none", count])),
      keys: stages.map(viewOf),
    },
    text: `${table(["KIND", "KEY", "ALGORITHM", "STATE", "SINCE", "NEXT"], rows)}Master key ${master}; passwords by pepper: ${counted}\n`,
  };
}

function nextStepOf(key: KeyStage): string {
  if (key.state === "next")
    return key.activatesAt ? `active ${key.activatesAt.toISOString()}` : "run it again to finish";
  if (key.state === "retiring" && key.retiresAt) return `retired ${key.retiresAt.toISOString()}`;
  return "";
}
