import { matchesNetwork } from "../../config/kinds.ts";
import type { Settings } from "../../config/schema.ts";
import { traceFields } from "../../config/trace.ts";
import type { Caller, Deps } from "../deps.ts";
import type { Authenticated } from "../features/auth/service.ts";
import type { Principal } from "../features/rights/service.ts";
import { clientAddress } from "./client-address.ts";

/** What is known of a request before anything looks at it. */
export interface RequestContext extends Caller {
  readonly requestId: string;
  readonly startedAt: number;
  /** When there was something to answer, by the same clock; what comes after it is writing. */
  answeredAt?: number;
  /** With what status, and by which route as it is declared. */
  status?: number;
  route?: string | undefined;
  /** Whoever it was found to come from, and who of these may do what they ask for. */
  principal?: Principal;
  admitted?: Authenticated;
  /** Whether it was counted under the limits of its route. */
  isCounted?: boolean;
  /** The span of this request, and the trace that it belongs to, where it is traced. */
  readonly trace: { readonly trace_id?: string; readonly span_id?: string };
}

const WELL_FORMED_ID = /^[A-Za-z0-9._-]{8,128}$/;
const MAX_USER_AGENT = 512;
const MAX_LOGGED_PATH = 512;
const contexts = new WeakMap<Request, RequestContext>();
const proxyTests = new WeakMap<readonly string[], (address: string) => boolean>();

function isProxyFor(settings: Settings): (address: string) => boolean {
  const networks = settings.server.trusted_proxies;
  const known = proxyTests.get(networks) ?? matchesNetwork(networks);
  proxyTests.set(networks, known);
  return known;
}

/** Reads and remembers the context of a request; `peer` is the address at the other end of the connection. */
export function openContext(deps: Deps, request: Request, peer: string | null): RequestContext {
  const { headers } = request;
  const offered = headers.get("x-request-id");
  const context: RequestContext = {
    requestId: offered && WELL_FORMED_ID.test(offered) ? offered : deps.random.id(deps.clock.now()),
    ip: clientAddress(peer, headers.get("x-forwarded-for"), isProxyFor(deps.settings)),
    userAgent: headers.get("user-agent")?.slice(0, MAX_USER_AGENT) ?? null,
    startedAt: deps.clock.elapsed(),
    trace: traceFields(),
  };
  contexts.set(request, context);
  return context;
}

const NOBODY: Readonly<RequestContext> = { requestId: "unknown", ip: null, userAgent: null, startedAt: 0, trace: {} };

/**
 * The path of a request, without its query. Taken by hand: where the Host header is missing (HTTP/1.0) or no host, the
 * request's URL is none that `new URL` would read.
 */
export const pathOf = ({ url }: Request): string => /^(?:https?:\/\/[^/?#]*)?([^?#]*)/i.exec(url)?.[1] || "/";

/** The path as a log line keeps it. */
export const loggedPathOf = (request: Request): string => pathOf(request).slice(0, MAX_LOGGED_PATH);

/** The context of a request that {@link openContext} has seen. */
export const contextOf = (request: Request): Readonly<RequestContext> => contexts.get(request) ?? NOBODY;

/** Remembers what was found out about a request. All in one place: each map by requests takes a microsecond of each. */
export function remember(request: Request, found: Partial<RequestContext>): void {
  const context = contexts.get(request);
  if (context) Object.assign(context, found);
}

/** What services keep of a request. */
export function callerOf(request: Request): Caller {
  const { requestId, ip, userAgent } = contextOf(request);
  return { requestId, ip, userAgent };
}
