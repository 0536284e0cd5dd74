import { grafanaRules, vmalertRules } from "./alert-files.ts";
import { api } from "./dashboards/api.ts";
import { authentication } from "./dashboards/authentication.ts";
import { background } from "./dashboards/background.ts";
import { errors } from "./dashboards/errors.ts";
import { keysAndBackups } from "./dashboards/keys-and-backups.ts";
import { system } from "./dashboards/system.ts";
import { users } from "./dashboards/users.ts";

const DASHBOARDS = [authentication, api, system, users, errors, background, keysAndBackups];

/** Everything under grafana/ that is made from code: path to content. */
export function grafanaFiles(): Readonly<Record<string, string>> {
  const dashboards = DASHBOARDS.map((make) => make());
  return {
    ...Object.fromEntries(
      dashboards.map((made) => [
        `grafana/dashboards/${made.uid?.replace("primer-", "")}.json`,
        `${JSON.stringify(made, null, 2)}\n`,
      ]),
    ),
    "grafana/alerts/vmalert.yml": vmalertRules(),
    "grafana/alerts/grafana.yml": grafanaRules(),
  };
}
