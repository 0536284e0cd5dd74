import type { Builder } from "@grafana/grafana-foundation-sdk/cog";
import {
  type Dashboard,
  DashboardBuilder,
  DashboardCursorSync,
  DashboardLinkBuilder,
  DashboardLinkType,
  DatasourceVariableBuilder,
  type Panel,
  QueryVariableBuilder,
  VariableRefresh,
  VariableSort,
} from "@grafana/grafana-foundation-sdk/dashboard";
import { DATA_SOURCE } from "./panels.ts";
import { selectors } from "./queries.ts";

/** The label that every series has, and each dashboard chooses one value of. */
export const SCOPE = 'environment="$environment"';
/** As long as it takes to see a change, whatever stretch of time is shown. */
export const WINDOW = "$__rate_interval";

/** Selectors of the environment that is chosen. */
export const chosen = selectors(SCOPE);

export interface DashboardParts {
  /** Its address in Grafana, and the name of its file. */
  readonly uid: string;
  readonly title: string;
  readonly description: string;
  readonly panels: readonly Builder<Panel>[];
}

/** A dashboard for one environment at a time, with links to the others. */
export function dashboard({ uid, title, description, panels }: DashboardParts): Dashboard {
  const builder = new DashboardBuilder(`primer / ${title}`)
    .uid(uid)
    .description(description)
    .tags(["primer"])
    .readonly()
    .tooltip(DashboardCursorSync.Crosshair)
    .time({ from: "now-6h", to: "now" })
    .refresh("30s")
    .timezone("browser")
    .withVariable(new DatasourceVariableBuilder("datasource").label("Data source").type("prometheus"))
    .withVariable(
      new QueryVariableBuilder("environment")
        .label("Environment")
        .datasource(DATA_SOURCE)
        .query(`label_values(${selectors("").of("primer_info")}, environment)`)
        .refresh(VariableRefresh.OnTimeRangeChanged)
        .sort(VariableSort.AlphabeticalAsc),
    )
    .link(
      new DashboardLinkBuilder("primer")
        .type(DashboardLinkType.Dashboards)
        .tags(["primer"])
        .includeVars(true)
        .keepTime(true),
    );
  for (const panel of panels) builder.withPanel(panel);
  const built = builder.build();
  return { ...built, panels: built.panels?.map((panel, index) => ({ ...panel, id: index + 1 })) ?? [] };
}
