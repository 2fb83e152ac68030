/** Spans with OpenTelemetry's attributes for generative models. Without an SDK in the process they cost nothing. */
import { context, propagation, type Span, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import type { Usage } from "candlewick";

const tracer = trace.getTracer("candlewick-server");

const headers = {
  keys: (carrier: Headers) => Array.from(carrier.keys()),
  get: (carrier: Headers, key: string) => carrier.get(key) ?? undefined,
};

/** `operation`: `text_completion`, `chat`, `embeddings`, … The caller's trace, if the request has one, goes on. */
export function startSpan(operation: string, model: string, request: Headers, attributes: Record<string, unknown>): Span {
  const parent = propagation.extract(context.active(), request, headers);
  const span = tracer.startSpan(`${operation} ${model}`, { kind: SpanKind.SERVER }, parent);
  span.setAttribute("gen_ai.operation.name", operation);
  span.setAttribute("gen_ai.provider.name", "candlewick");
  span.setAttribute("gen_ai.request.model", model);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "number" || typeof value === "string") span.setAttribute(`gen_ai.request.${name}`, value);
  }
  return span;
}

export function endSpan(span: Span, ended: { usage?: Usage; finishReasons?: readonly string[]; error?: string }): void {
  const { usage, finishReasons, error } = ended;
  if (usage) {
    span.setAttribute("gen_ai.usage.input_tokens", usage.promptTokens);
    span.setAttribute("gen_ai.usage.output_tokens", usage.completionTokens);
  }
  if (finishReasons) span.setAttribute("gen_ai.response.finish_reasons", Array.from(finishReasons));
  if (error !== undefined) {
    span.setAttribute("error.type", error);
    span.setStatus({ code: SpanStatusCode.ERROR });
  }
  span.end();
}
