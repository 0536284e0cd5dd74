export { circuitBreakers, type SystemHealth, systemHealth } from "./dependency-health.ts";
export { measureInstallation } from "./measure-installation.ts";
export { measureProcess } from "./measure-process.ts";
export { aloneInHome, type NodeMetrics, shareMetrics } from "./node-metrics.ts";
export { bearsToken, PROMETHEUS_TYPE, prometheusText } from "./prometheus.ts";
