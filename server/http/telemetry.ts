import type { Span } from "@opentelemetry/api";
import type { LabelsOf, Stage } from "../../config/metrics.ts";
import { inSpan, isTracing, type TraceCarrier } from "../../config/trace.ts";
import type { Deps } from "../deps.ts";
import { contextOf, loggedPathOf, remember } from "./context.ts";

type Method = LabelsOf<"http_server_request_duration_seconds">["method"];
const METHODS: ReadonlySet<string> = new Set(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]);

/** Of a path that is none of ours: their number has no bound. */
const NO_ROUTE = "none";

/** What was found out about a request that is traced, for the end of its span. */
const spans = new WeakMap<Request, Span>();

/** Runs a stage of a request, and shows how long it took. */
export async function inStage<T>(
  { metrics, clock }: Pick<Deps, "metrics" | "clock">,
  stage: Stage,
  work: () => Promise<T>,
) {
  const began = clock.elapsed();
  const result = await inSpan(stage, {}, work);
  metrics.record("primer_request_stage_duration_seconds", (clock.elapsed() - began) / 1000, { stage });
  return result;
}

/**
 * Counts and logs requests when their answers have been handed to the system: all of a turn of the event loop together,
 * since a turn for each of them would take longer than what is done in it.
 *
 * @returns to be told of each answer: the route as it is declared, empty where there is none
 */
export function countAnswers(deps: Deps): (request: Request, route: string | undefined, status: number) => void {
  let waiting: Request[] = [];
  function look(): void {
    const answered = waiting;
    waiting = [];
    for (const request of answered) {
      try {
        countRequest(deps, request);
        logRequest(deps, request);
      } catch (error) {
        deps.log.error("A request could not be logged", { event: "request.not_logged", error });
      }
    }
  }
  return (request, route, status) => {
    if (contextOf(request).answeredAt === undefined) {
      if (waiting.length === 0) setImmediate(look);
      waiting.push(request);
    }
    remember(request, { answeredAt: deps.clock.elapsed(), status, route });
  };
}

function countRequest({ metrics, clock }: Deps, request: Request): void {
  const { startedAt, answeredAt = startedAt, status, route } = contextOf(request);
  const now = clock.elapsed();
  const method = (METHODS.has(request.method) ? request.method : "other") as Method;
  const labels = { method, route: route || NO_ROUTE, status: String(status) };
  metrics.record("http_server_request_duration_seconds", (now - startedAt) / 1000, labels);
  metrics.record("primer_request_stage_duration_seconds", (now - answeredAt) / 1000, { stage: "write" });
}

function logRequest({ log, clock }: Deps, request: Request): void {
  const { requestId, ip, userAgent, startedAt, status, trace } = contextOf(request);
  log.info("A request was answered", {
    event: "request.answered",
    request_id: requestId,
    method: request.method,
    path: loggedPathOf(request),
    status,
    duration_ms: Math.round((clock.elapsed() - startedAt) * 10) / 10,
    ip,
    user_agent: userAgent,
    ...trace,
  });
}

/** The span of a request is named as soon as its route is known: it ends before the request is counted. */
export function nameSpan(request: Request, route: string | undefined): void {
  if (!isTracing() || !route) return;
  spans.get(request)?.updateName(`${request.method} ${route}`).setAttribute("http.route", route);
}

/**
 * Makes each request a span: of the trace that its sender has begun (W3C Trace Context), or of a new one. Around all
 * hooks, so that everything that a request causes belongs to it.
 */
export const traceRequest = (handle: (request: Request, ...more: unknown[]) => unknown) => {
  return (request: Request, ...more: unknown[]) => {
    const attributes = { "http.request.method": request.method };
    const options = { kind: "server", attributes, causedBy: carrierOf(request.headers) } as const;
    return inSpan(request.method, options, async (span) => {
      if (span) spans.set(request, span);
      const response = (await handle(request, ...more)) as Response;
      span?.setAttribute("http.response.status_code", response.status);
      return response;
    });
  };
};

/** The ids of the trace alone: `tracestate` is text of whoever sends it. */
function carrierOf(headers: Headers): TraceCarrier {
  const traceparent = headers.get("traceparent");
  return traceparent ? { traceparent } : {};
}
