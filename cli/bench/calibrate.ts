import type { CommandContext, Outcome } from "../command.ts";
export const calibrate = async (_: CommandContext): Promise<Outcome> => ({ json: null, text: "" });
