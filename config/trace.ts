import { type Attributes, context, propagation, type Span, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";

/** What is handed on to whoever goes on with a trace (W3C Trace Context): empty where nothing is traced. */
export type TraceCarrier = { traceparent?: string };

let isOn = false;
/** From now on spans are made, by whatever provider was registered. */
export const switchTracing = (on: boolean): void => {
  isOn = on;
};
export const isTracing = (): boolean => isOn;

interface SpanOptions {
  readonly kind?: "internal" | "client" | "server" | "consumer";
  readonly attributes?: Attributes;
  /** Who caused it, elsewhere; otherwise it belongs to what is under way here. */
  readonly causedBy?: TraceCarrier;
}

const KINDS = {
  internal: SpanKind.INTERNAL,
  client: SpanKind.CLIENT,
  server: SpanKind.SERVER,
  consumer: SpanKind.CONSUMER,
} as const;

/**
 * Runs some work as a span of the trace that is under way. Costs nothing while nothing is traced. Attributes and names
 * hold nothing that a person has sent: no values of statements, no addresses, no tokens.
 */
export function inSpan<T>(name: string, options: SpanOptions, work: (span?: Span) => Promise<T>): Promise<T> {
  if (!isOn) return work();
  const { kind = "internal", attributes = {}, causedBy } = options;
  const parent = causedBy ? propagation.extract(context.active(), causedBy) : context.active();
  const span = trace.getTracer("primer").startSpan(name, { kind: KINDS[kind], attributes }, parent);
  return context.with(trace.setSpan(parent, span), async () => {
    try {
      return await work(span);
    } catch (error) {
      // Its name alone: messages may hold what was sent.
      span.setStatus({ code: SpanStatusCode.ERROR, message: error instanceof Error ? error.name : typeof error });
      throw error;
    } finally {
      span.end();
    }
  });
}

/** For whoever goes on with what is under way here: headers of a request, fields of a job. */
export function traceCarrier(): TraceCarrier {
  const carrier: TraceCarrier = {};
  if (isOn) propagation.inject(context.active(), carrier);
  return carrier;
}

/** The trace and the span that are under way, for log lines. */
export function traceFields(): { trace_id?: string; span_id?: string } {
  const span = isOn ? trace.getActiveSpan()?.spanContext() : undefined;
  return span ? { trace_id: span.traceId, span_id: span.spanId } : {};
}
