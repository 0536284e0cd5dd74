import { VERSION } from "../../config/version.ts";
import { describeApi } from "../../server/app.ts";
import type { Outcome } from "../command.ts";

/** The OpenAPI document of this version; needs no installation. */
export async function run(): Promise<Outcome> {
  const document = await describeApi({ version: VERSION });
  return { json: document, text: `${JSON.stringify(document, null, 2)}\n` };
}
