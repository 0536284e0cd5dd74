import { join } from "node:path";
import { type OwnPostgres, ownPostgres } from "./own-postgres.ts";
import { initHome, type Server, scratchFolder, serve } from "./processes.ts";

export interface TwoNodes {
  readonly postgres: OwnPostgres;
  /** A folder of this installation's own. */
  readonly folder: string;
  readonly home: string;
  readonly variables: Record<string, string>;
  readonly nodes: Server[];
  remove(): Promise<void>;
}

/** An installation on a PostgreSQL of its own, served by two processes under one public address. */
export async function serveTwoNodes(more: Record<string, string> = {}): Promise<TwoNodes> {
  const scratch = scratchFolder();
  const postgres = await ownPostgres();
  const home = join(scratch.path, "home");
  const variables = { DATABASE_URL: postgres.url, PRIMER_SERVER__PUBLIC_URL: "http://primer.test", ...more };
  await initHome(home, variables);
  const nodes = [await serve(home, variables), await serve(home, variables)];
  return {
    postgres,
    folder: scratch.path,
    home,
    variables,
    nodes,
    async remove() {
      await Promise.all(nodes.map((node) => node.kill()));
      await postgres.remove();
      scratch.remove();
    },
  };
}
