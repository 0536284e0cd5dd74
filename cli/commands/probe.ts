import { failed, textOf, unreachable } from "../../config/errors.ts";
import { loadSettings } from "../../config/load.ts";
import type { CommandContext, Outcome } from "../command.ts";

const DEADLINE_MS = 3000;
/** Where a server that listens on every address is reached from its own machine. */
const OWN_ADDRESS: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1" };

/**
 * Asks the server of these settings on this machine whether it is ready for requests: for health checks in an image that
 * has no other program. Opens no database.
 *
 * @throws OperatorError exit 3 where nothing answers, exit 1 where what answers is not ready
 */
export async function run({ home, environment }: CommandContext): Promise<Outcome> {
  const { server } = loadSettings(home, environment).settings;
  const host = OWN_ADDRESS[server.host] ?? server.host;
  const scheme = server.tls_cert === "" ? "http" : "https";
  const url = `${scheme}://${host.includes(":") ? `[${host}]` : host}:${server.port}/readyz`;
  const response = await fetch(url, {
    signal: AbortSignal.timeout(DEADLINE_MS),
    // The certificate is for the public name, and nothing that matters is said or believed here.
    tls: { rejectUnauthorized: false },
  }).catch((error) => {
    throw unreachable(`${url} does not answer: ${textOf(error)}`, "Is `primer serve` running? Its log says why not.");
  });
  const { status } = response;
  if (status !== 200) {
    throw failed(
      `${url} answers ${status}: the server is there and not ready.`,
      "It starts, stops or has no database; `primer doctor` says which.",
    );
  }
  return { json: { ready: true, url }, text: `${url} is ready\n` };
}
