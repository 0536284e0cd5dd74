import { misused } from "../../config/errors.ts";
import { type CommandContext, type CommandSpec, GLOBAL_OPTIONS, type Outcome } from "../command.ts";

interface Word {
  readonly word: string;
  readonly help: string;
}

/** What can follow each beginning of a command line: "" → commands, "users" → its verbs and options. */
function vocabulary(commands: readonly CommandSpec[]): Map<string, Word[]> {
  const words = new Map<string, Word[]>();
  const add = (after: string, word: string, help: string) => {
    const known = words.get(after) ?? [];
    if (!known.some((entry) => entry.word === word)) words.set(after, [...known, { word, help }]);
  };
  for (const { name, summary, options = [], arguments: parameters = [] } of commands) {
    const [first = "", second] = name.split(" ");
    add("", first, second ? `${first} commands` : summary);
    if (second) add(first, second, summary);
    for (const value of parameters[0]?.values ?? []) add(name, value, parameters[0]?.description ?? "");
    for (const { flags, description } of [...options, ...GLOBAL_OPTIONS]) {
      add(name, flags.split(/[ ,]/)[0] ?? flags, description);
    }
  }
  return words;
}

const quote = (text: string) => `'${text.replaceAll("'", "’")}'`;

const GENERATORS: Readonly<Record<string, (words: Map<string, Word[]>) => string>> = {
  bash: (words) => `_primer() {
  local before="\${COMP_WORDS[*]:1:COMP_CWORD-1}" cur="\${COMP_WORDS[COMP_CWORD]}"
  while :; do
    case "$before" in
${[...words].map(([after, list]) => `      ${quote(after)}) COMPREPLY=($(compgen -W ${quote(list.map(({ word }) => word).join(" "))} -- "$cur")); return ;;`).join("\n")}
      *' '*) before="\${before% *}" ;;
      *) return ;;
    esac
  done
}
complete -F _primer primer
`,
  zsh: (words) => `#compdef primer
_primer() {
  local before="\${(j: :)words[2,CURRENT-1]}"
  local -a found
  while :; do
    case "$before" in
${[...words].map(([after, list]) => `      ${quote(after)}) found=(${list.map(({ word, help }) => quote(`${word}:${help.replaceAll(":", " ")}`)).join(" ")}); _describe primer found; return ;;`).join("\n")}
      *' '*) before="\${before% *}" ;;
      *) return ;;
    esac
  done
}
compdef _primer primer
`,
  fish: (words) =>
    [...words]
      .flatMap(([after, list]) => {
        const condition =
          after === "" ? "__fish_use_subcommand" : `string match -q -- ${quote(`primer ${after}*`)} (commandline -cp)`;
        return list.map(
          ({ word, help }) =>
            `complete -c primer -f -n ${quote(condition.replaceAll("'", '"'))} -a ${quote(word)} -d ${quote(help)}`,
        );
      })
      .join("\n")
      .concat("\n"),
};

/** The completion script of a shell, made from the table of commands. */
export async function run(context: CommandContext): Promise<Outcome> {
  const shell = context.arguments[0] ?? "";
  const generate = Object.hasOwn(GENERATORS, shell) ? GENERATORS[shell] : undefined;
  if (!generate)
    throw misused(`There are no completions for ${shell}.`, `Shells: ${Object.keys(GENERATORS).join(", ")}`);
  const script = generate(vocabulary(context.commands));
  return { json: { shell, script }, text: script };
}
