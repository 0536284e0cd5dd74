import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { Sample, Victoria } from "../support/victoria.ts";

const DASHBOARDS = join(import.meta.dir, "../../grafana/dashboards");

export interface PanelQuery {
  /** Dashboard, panel and legend, as people see them. */
  readonly name: string;
  readonly expression: string;
}

interface DashboardFile {
  readonly title: string;
  readonly panels: readonly { title: string; targets: readonly { expr: string; legendFormat: string }[] }[];
}

/** Every query of every dashboard, as the files have them. */
export const panelQueries: readonly PanelQuery[] = readdirSync(DASHBOARDS).flatMap((file) => {
  const { panels } = require(join(DASHBOARDS, file)) as DashboardFile;
  return panels.flatMap(({ title, targets }) =>
    targets.map(({ expr, legendFormat }) => ({
      name: [file.replace(".json", ""), title, ...(legendFormat === title ? [] : [legendFormat])].join(": "),
      expression: expr,
    })),
  );
});

/** What Grafana puts in for its variables. */
const filledIn = (expression: string, environment: string) =>
  expression.replaceAll("$environment", environment).replaceAll("$__rate_interval", "1m").replaceAll("$__range", "10m");

/** Remembers which queries have answered a number, in each environment. */
export function watchPanels(victoria: Victoria, environments: readonly string[]) {
  const left = new Map(
    environments.flatMap((environment) =>
      panelQueries.map(({ name, expression }) => [`${environment}: ${name}`, filledIn(expression, environment)]),
    ),
  );
  const isNumber = ({ value }: Sample) => !Number.isNaN(value);
  return {
    /** Asks those that have not answered yet. @returns their names, where they still have not */
    async look(): Promise<string[]> {
      for (const [name, expression] of left) if ((await victoria.query(expression)).some(isNumber)) left.delete(name);
      return [...left.keys()];
    },
  };
}
