import { PanelBuilder as BarGaugePanel } from "@grafana/grafana-foundation-sdk/bargauge";
import type { Builder, Dataquery } from "@grafana/grafana-foundation-sdk/cog";
import {
  BarGaugeDisplayMode,
  BigValueColorMode,
  BigValueGraphMode,
  GraphThresholdsStyleConfigBuilder,
  GraphThresholdsStyleMode,
  LegendDisplayMode,
  LegendPlacement,
  ReduceDataOptionsBuilder,
  SortOrder,
  StackingConfigBuilder,
  StackingMode,
  TooltipDisplayMode,
  VisibilityMode,
  VizLegendOptionsBuilder,
  VizOrientation,
  VizTooltipOptionsBuilder,
} from "@grafana/grafana-foundation-sdk/common";
import {
  type DataSourceRef,
  FieldColorBuilder,
  FieldColorModeId,
  type Panel,
  type Threshold,
  ThresholdsConfigBuilder,
  ThresholdsMode,
} from "@grafana/grafana-foundation-sdk/dashboard";
import { DataqueryBuilder } from "@grafana/grafana-foundation-sdk/prometheus";
import { PanelBuilder as StatPanel } from "@grafana/grafana-foundation-sdk/stat";
import { PanelBuilder as TimeSeriesPanel } from "@grafana/grafana-foundation-sdk/timeseries";
import type { MetricName } from "../../config/metrics.ts";
import { METRICS } from "../../config/metrics.ts";
import type { AlertName } from "./alerts.ts";

/** Whatever data source is chosen on the dashboard. */
export const DATA_SOURCE: DataSourceRef = { type: "prometheus", uid: "$datasource" };

const [GREEN, ORANGE, RED] = ["green", "orange", "red"];

interface Common {
  readonly title: string;
  /** The metric whose sentence says what is seen. */
  readonly about: MetricName;
  readonly unit: string;
  /** The alerts that watch the same. */
  readonly alerts?: readonly AlertName[];
}

interface Tile extends Common {
  readonly query: string;
  /** From where on the value is a worry, and from where on it is bad; falling ones where bad is the smaller. */
  readonly worry?: readonly [warn: number, bad: number];
  /** What stands there where nothing was counted. */
  readonly empty?: string;
  readonly decimals?: number;
}

interface Lines extends Common {
  /** What each is called (Grafana's form, such as `{{reason}}`), and its query. */
  readonly queries: Readonly<Record<string, string>>;
  /** Where a line is drawn, which an alert watches. */
  readonly limit?: number;
  readonly stacked?: boolean;
  readonly max?: number;
}

const query = (expr: string, legend: string, refId: string, isInstant: boolean): Builder<Dataquery> => {
  const built = new DataqueryBuilder().datasource(DATA_SOURCE).expr(expr).legendFormat(legend).refId(refId);
  return isInstant ? built.instant() : built.range();
};

function described({ about, alerts = [] }: Common): string {
  const { sentence } = METRICS[about];
  const named = alerts.map((name) => `\`${name}\``).join(", ");
  return alerts.length === 0 ? sentence : `${sentence}\n\nAlert: ${named}. What to do: README, Runbook.`;
}

function thresholds(worry: Tile["worry"]): ThresholdsConfigBuilder {
  const [warn, bad] = worry ?? [];
  const steps: Threshold[] =
    warn === undefined || bad === undefined
      ? [{ value: null, color: GREEN ?? "" }]
      : warn <= bad
        ? stepsOf([null, GREEN], [warn, ORANGE], [bad, RED])
        : stepsOf([null, RED], [bad, ORANGE], [warn, GREEN]);
  return new ThresholdsConfigBuilder().mode(ThresholdsMode.Absolute).steps(steps);
}

const stepsOf = (...steps: readonly [number | null, string | undefined][]): Threshold[] =>
  steps.map(([value, color = "green"]) => ({ value, color }));

/** One number, with its course behind it where it has one: what is counted over the whole time shown has none. */
export function tile(options: Tile): Builder<Panel> {
  const isTotal = options.query.includes("$__range]");
  const panel = new StatPanel()
    .title(options.title)
    .description(described(options))
    .datasource(DATA_SOURCE)
    .unit(options.unit)
    .noValue(options.empty ?? "0")
    .thresholds(thresholds(options.worry))
    .colorScheme(new FieldColorBuilder().mode(FieldColorModeId.Thresholds))
    .colorMode(options.worry ? BigValueColorMode.Value : BigValueColorMode.None)
    .graphMode(isTotal ? BigValueGraphMode.None : BigValueGraphMode.Area)
    .reduceOptions(new ReduceDataOptionsBuilder().calcs(["lastNotNull"]).values(false))
    .height(4)
    .span(4)
    .withTarget(query(options.query, options.title, "A", isTotal));
  return options.decimals === undefined ? panel : panel.decimals(options.decimals);
}

/** Lines over time. */
export function lines(options: Lines): Builder<Panel> {
  const panel = new TimeSeriesPanel()
    .title(options.title)
    .description(described(options))
    .datasource(DATA_SOURCE)
    .unit(options.unit)
    .min(0)
    .height(8)
    .span(12)
    .lineWidth(options.stacked ? 1 : 2)
    .fillOpacity(options.stacked ? 40 : 8)
    .showPoints(VisibilityMode.Never)
    .stacking(new StackingConfigBuilder().mode(options.stacked ? StackingMode.Normal : StackingMode.None))
    .legend(
      new VizLegendOptionsBuilder()
        .displayMode(LegendDisplayMode.List)
        .placement(LegendPlacement.Bottom)
        .showLegend(true)
        .calcs([]),
    )
    .tooltip(new VizTooltipOptionsBuilder().mode(TooltipDisplayMode.Multi).sort(SortOrder.Descending))
    .targets(
      Object.entries(options.queries).map(([legend, expr], index) =>
        query(expr, legend, String.fromCharCode(65 + index), false),
      ),
    );
  if (options.max !== undefined) panel.max(options.max);
  if (options.limit === undefined) return panel;
  return panel
    .thresholds(thresholds([options.limit, options.limit]))
    .thresholdsStyle(new GraphThresholdsStyleConfigBuilder().mode(GraphThresholdsStyleMode.Dashed));
}

/** The largest of something, as bars beside each other. */
export function bars(options: Common & { readonly query: string; readonly legend: string }): Builder<Panel> {
  return new BarGaugePanel()
    .title(options.title)
    .description(described(options))
    .datasource(DATA_SOURCE)
    .unit(options.unit)
    .min(0)
    .height(8)
    .span(12)
    .orientation(VizOrientation.Horizontal)
    .displayMode(BarGaugeDisplayMode.Basic)
    .colorScheme(new FieldColorBuilder().mode(FieldColorModeId.PaletteClassic))
    .reduceOptions(new ReduceDataOptionsBuilder().calcs(["lastNotNull"]).values(false))
    .withTarget(query(options.query, options.legend, "A", true));
}
