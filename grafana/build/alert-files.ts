import { ALERT_LIST, type Alert, type AlertName } from "./alerts.ts";

/** How often alerts are looked at. */
const INTERVAL = "1m";
/** The data source as it is provisioned beside the alerts. */
const DATA_SOURCE = "victoriametrics";

const SHOWN = { share: "humanizePercentage", duration: "humanizeDuration", number: "humanize" } as const;

/** Where the line of an alert in the runbook is. */
export const anchorOf = (name: AlertName) => `alert-${name.toLowerCase()}`;

/** A sentence as both templates have it. @param value how the value is written there */
const templated = (sentence: string, value: string) =>
  sentence.replace(/\{(\w+)\}/g, "{{ $labels.$1 }}").replace("VALUE", `{{ ${value} }}`);

const annotationsOf = (name: AlertName, { summary, description, runbook }: Alert, value: string) => ({
  summary: templated(summary, value),
  description: templated(description, value),
  action: runbook.act,
  runbook: `README.md#${anchorOf(name)}`,
});

const conditionOf = ({ value, over, under }: Alert) =>
  over === undefined ? `(${value}) < ${under}` : `(${value}) > ${over}`;

const yaml = (document: unknown) =>
  `# Generated from grafana/build/alerts.ts by \`bun run generate\`.\n${Bun.YAML.stringify(document, null, 2)}\n`;

/** Rules as vmalert and Prometheus read them. */
export const vmalertRules = (): string =>
  yaml({
    groups: [
      {
        name: "primer",
        rules: ALERT_LIST.map(([name, alert]) => ({
          alert: name,
          expr: conditionOf(alert),
          for: alert.for,
          labels: { severity: alert.severity },
          annotations: annotationsOf(name, alert, `$value | ${SHOWN[alert.shown]}`),
        })),
      },
    ],
  });

/** The same as Grafana provisions them: it asks for the value, and compares by itself. */
export const grafanaRules = (): string =>
  yaml({
    apiVersion: 1,
    groups: [
      {
        orgId: 1,
        name: "primer",
        folder: "primer",
        interval: INTERVAL,
        rules: ALERT_LIST.map(([name, alert]) => grafanaRule(name, alert)),
      },
    ],
  });

function grafanaRule(name: AlertName, alert: Alert) {
  const { value, over, under, severity } = alert;
  const evaluator = over === undefined ? { type: "lt", params: [under] } : { type: "gt", params: [over] };
  return {
    uid: `primer-${name.toLowerCase()}`,
    title: name,
    condition: "B",
    data: [
      {
        refId: "A",
        relativeTimeRange: { from: 600, to: 0 },
        datasourceUid: DATA_SOURCE,
        model: { refId: "A", expr: value, instant: true, range: false },
      },
      {
        refId: "B",
        relativeTimeRange: { from: 600, to: 0 },
        datasourceUid: "__expr__",
        model: { refId: "B", type: "threshold", expression: "A", conditions: [{ evaluator }] },
      },
    ],
    noDataState: "OK", // a value that nobody counts is none to worry about; that nothing comes at all is ProcessesGone
    execErrState: "Error",
    for: alert.for,
    labels: { severity },
    annotations: annotationsOf(name, alert, `${SHOWN[alert.shown]} $values.A.Value`),
  };
}
