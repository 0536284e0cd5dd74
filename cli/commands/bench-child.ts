import { misused } from "../../config/errors.ts";
import { serveHandlers } from "../bench/child.ts";
import type { CommandContext, Outcome } from "../command.ts";

/** What `primer bench` runs in processes of their own; nobody types this. Each ends with its standard input. */
const PARTS: Readonly<Record<string, (context: CommandContext) => Promise<void>>> = {
  async load() {
    const { loadHandlers } = await import("../bench/load-child.ts");
    const { handlers, end } = loadHandlers();
    await serveHandlers(handlers, end);
  },
  async bare() {
    const { openBareApp } = await import("../../server/http/bare-app.ts");
    const app = openBareApp();
    await serveHandlers({ port: () => app.port }, () => app.stop());
  },
  async server({ environment }) {
    const { scratchServer } = await import("../bench/scratch-server.ts");
    const { handlers, end } = scratchServer(environment);
    await serveHandlers(handlers, end);
  },
  async seed({ environment, io }) {
    const { seed } = await import("../bench/seed.ts");
    await serveHandlers({ seed: (wanted: Parameters<typeof seed>[1]) => seed({ environment, io }, wanted) });
  },
};

export async function run(context: CommandContext): Promise<Outcome> {
  const part = PARTS[context.arguments[0] ?? ""];
  if (!part) throw misused(`A bench has no part ${context.arguments[0]}.`);
  await part(context);
  return { json: null, text: "" };
}
