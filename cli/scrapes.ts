import { failed, textOf } from "../config/errors.ts";
import type { Deps } from "../server/deps.ts";
import { openMetricsListener } from "../server/http/metrics-listener.ts";

/** Answers /metrics at the address that the settings name for it, if any. @throws OperatorError exit 1 where it is taken */
export function listenForScrapes(deps: Deps): { stop(): void } | undefined {
  try {
    return openMetricsListener(deps);
  } catch (error) {
    throw failed(
      `${deps.settings.telemetry.metrics_listen} cannot be listened on for metrics: ${textOf(error)}`,
      "Something else may have the port; choose another one in telemetry.metrics_listen.",
      error,
    );
  }
}
