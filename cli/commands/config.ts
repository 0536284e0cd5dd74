import { readCertificate } from "../../config/certificate.ts";
import { misused } from "../../config/errors.ts";
import { writeRate } from "../../config/kinds.ts";
import { findSetting, loadSettings, nearestKey, type ResolvedSetting } from "../../config/load.ts";
import { defaultOf, type Settings } from "../../config/schema.ts";
import { readSecrets } from "../../config/secrets.ts";
import { readGeoFile } from "../../server/ports/geo-file.ts";
import { createMailer } from "../../worker/mail/transport.ts";
import { checkMailFiles } from "../check-mail.ts";
import type { CommandContext, Implementation, Outcome } from "../command.ts";
import { table } from "../io.ts";

const load = (context: CommandContext) => loadSettings(context.home, context.environment);

/** What is counted inside of a request: per account, per session, per client. */
const SERVICE_LIMITS: Readonly<Record<string, readonly string[]>> = {
  "/api/v1/auth/login: failures on one account": ["login_account"],
  "/api/v1/auth/refresh: of one session": ["refresh"],
  "/oauth2: failed authentications from one address": ["client_failed"],
  "/oauth2: tokens of one client that are not good": ["introspect_failed"],
};

/** What may be shown of a value: of a secret only whether there is one. */
const shown = ({ setting, raw }: ResolvedSetting) => (setting.secret ? (raw === "" ? "" : "(set)") : raw);

/**
 * Checks every setting, the secrets, the certificate and the GeoIP file; exit 2 with a line per fault. Files for mails that
 * are of no use are named.
 */
export const check: Implementation = {
  async run(context) {
    const { settings, resolved, variables } = load(context);
    readSecrets(variables);
    readCertificate(settings.server, context.home);
    if (settings.rate_limits.routes.size > 0) {
      const { assertRoutesKnown, routeLimits } = await import("../../server/app.ts");
      assertRoutesKnown(
        settings,
        routeLimits().map(({ route }) => route),
      );
    }
    if (settings.accounts.geoip_file !== "") await readGeoFile(settings.accounts.geoip_file, context.home);
    createMailer(settings, context.home).close();
    const problems = checkMailFiles(context.home, settings);
    const changed = [...resolved.values()].filter(({ origin }) => origin !== "default").length;
    return {
      json: { ok: true, environment: settings.environment, settings: resolved.size, changed, unused_files: problems },
      text: [
        `The configuration is good: ${settings.environment}, ${changed} of ${resolved.size} settings differ from the defaults.\n`,
        ...problems.map(({ path, reason }) => `${path} is of no use and is passed over: ${reason}\n`),
      ].join(""),
    };
  },
};

/** The limits as they count: those of each route, then those of what is known only inside of one. */
async function limitsOf(context: CommandContext): Promise<Outcome> {
  const { routeLimits } = await import("../../server/app.ts");
  const { resolved, settings } = load(context);
  const rateOf = (limit: string) => String(resolved.get(`rate_limits.${limit}`)?.raw ?? "off");
  const ratesOf = (limits: readonly string[]) => limits.map((limit) => [limit, rateOf(limit)]);
  const ratesOfRoute = (route: string, limits: readonly string[]) => {
    const own = settings.rate_limits.routes.get(route);
    if (own === undefined) return ratesOf(limits);
    return [...ratesOf(limits.filter((limit) => limit !== "general")), ["route", writeRate(own)]];
  };
  const rows = [
    ...routeLimits().map(({ route, limits }) => ({ route, limits: ratesOfRoute(route, limits) })),
    ...Object.entries(SERVICE_LIMITS).map(([route, limits]) => ({ route, limits: ratesOf(limits) })),
  ].map(({ route, limits }) => ({ route, limits: Object.fromEntries(limits) }));
  const shownLimits = (limits: object) => Object.entries(limits).map(([name, rate]) => `${name} ${rate}`);
  return {
    json: { mode: resolved.get("rate_limits.mode")?.raw, routes: rows },
    text: table(
      ["ROUTE", "LIMITS"],
      rows.map(({ route, limits }) => [route, shownLimits(limits).join(", ") || "none"]),
    ),
  };
}

/** Every setting with its value and where that came from; or the limits of each route. */
export const show: Implementation = {
  async run(context) {
    const [what] = context.arguments;
    if (what === "limits") return limitsOf(context);
    if (what !== undefined)
      throw misused(
        `There is nothing to show of ${what}.`,
        `\`primer config explain ${what}\` tells of one setting, \`primer config show limits\` of the limits.`,
      );
    const rows = [...load(context).resolved].map(([key, entry]) => ({
      key,
      value: shown(entry),
      origin: entry.origin,
    }));
    return {
      json: Object.fromEntries(rows.map(({ key, value, origin }) => [key, { value, origin }])),
      text: table(
        ["SETTING", "VALUE", "FROM"],
        rows.map(({ key, value, origin }) => [key, JSON.stringify(value), origin]),
      ),
    };
  },
};

/** All there is to know about one setting. */
export const explain: Implementation = {
  async run(context) {
    const key = context.arguments[0] ?? "";
    const setting = findSetting(key);
    if (!setting) {
      const nearest = nearestKey(key);
      throw misused(
        `There is no setting ${key}.`,
        nearest ? `Did you mean ${nearest}?` : "`primer config show` lists them.",
      );
    }
    const { settings, resolved } = load(context);
    const entry = resolved.get(key);
    const fallback = defaultOf(setting, (settings as Settings).environment);
    const value = entry ? shown(entry) : "";
    const facts = {
      key,
      sentence: setting.sentence,
      expected: setting.kind.expected,
      default: fallback,
      value,
      origin: entry?.origin ?? "default",
      variable: [setting.variable, setting.alias].filter(Boolean).join(" or "),
    };
    const lines = [
      ["expected", facts.expected],
      ["default", JSON.stringify(facts.default)],
      ["value", `${JSON.stringify(facts.value)} (${facts.origin})`],
      ["variable", `${facts.variable}, or the same with _FILE`],
    ].map(([name, text]) => `  ${(name ?? "").padEnd(9)} ${text}`);
    return { json: facts, text: `${key}: ${facts.sentence}\n${lines.join("\n")}\n` };
  },
};
