/** Whether this is the compiled binary and not its source: what it needs of itself lies inside of it then. */
export const isCompiled: boolean = Bun.main.startsWith("/$bunfs/");

/** How this program is started once more: the compiled file alone, or Bun with the source. */
export const ownProgram = (): string[] => (isCompiled ? [process.execPath] : [process.execPath, Bun.main]);
