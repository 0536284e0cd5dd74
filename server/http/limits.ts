import type { Rate } from "../../config/kinds.ts";
import type { Settings } from "../../config/schema.ts";
import { addressKey } from "../address-key.ts";
import type { Deps } from "../deps.ts";
import { rateLimited } from "../errors.ts";
import { hashSecret } from "../features/tokens/service.ts";
import { parseIdentifier } from "../features/users/service.ts";
import type { Check, Room } from "../ports/limiter.ts";
import { contextOf, remember } from "./context.ts";

/** What routes are limited by. A route declares its own; "general" is what every other one has. */
export type RouteLimit = "general" | "login_ip" | "login_ip_account" | "login_service" | "register_ip";

export const GENERAL: readonly RouteLimit[] = ["general"];

/** A route as it is declared, such as "GET /api/v1/users/:id", and what limits it. */
export interface LimitedRoute {
  readonly name: string;
  readonly limits: readonly RouteLimit[];
}

/** Where the declaration of a route's limits stands in its description. */
export const LIMITS_FIELD = "x-rate-limits";

interface Limited {
  readonly request: Request;
  readonly body: unknown;
}

const nameIn = (body: unknown) => {
  const { username } = (body ?? {}) as { username?: unknown };
  // As a hash: nobody reads in Redis which names were tried, nor what was typed in their place.
  return typeof username === "string" ? hashSecret(parseIdentifier(username).key) : "";
};

/** Whose share of each limit a request takes. */
const SUBJECTS: Record<RouteLimit, (limited: Limited) => string> = {
  general: ({ request }) => {
    const principal = contextOf(request).admitted?.principal;
    return principal ? `user:${principal.id}` : `ip:${addressKey(contextOf(request).ip)}`;
  },
  login_ip: ({ request }) => addressKey(contextOf(request).ip),
  login_ip_account: ({ request, body }) => `${addressKey(contextOf(request).ip)} ${nameIn(body)}`,
  login_service: () => "all",
  register_ip: ({ request }) => addressKey(contextOf(request).ip),
};

type LimitDeps = Pick<Deps, "settings" | "limiter" | "log" | "metrics" | "clock">;

function checksOf({ rate_limits }: Settings, { name: route, limits }: LimitedRoute, limited: Limited): Check[] {
  const own = rate_limits.routes.get(route);
  const names = own === undefined ? limits : limits.filter((name) => name !== "general");
  const checks = names.flatMap((name) => {
    const rate: Rate | null = rate_limits[name];
    return rate === null ? [] : [{ key: `${name}:${SUBJECTS[name](limited)}`, rate }];
  });
  return own ? [...checks, { key: `route:${route} ${SUBJECTS.general(limited)}`, rate: own }] : checks;
}

/**
 * Counts a request under every limit of its route at once, or under none where one of them has no room.
 *
 * @returns the RateLimit headers of the limit with the least room; none where nothing limits the route
 * @throws AppError RATE_LIMIT_EXCEEDED
 */
export async function enforceLimits(
  deps: LimitDeps,
  route: LimitedRoute,
  limited: Limited,
): Promise<Readonly<Record<string, string>>> {
  remember(limited.request, { isCounted: true }); // one that fails before this is counted when it is answered
  return takeAll(deps, checksOf(deps.settings, route, limited), limited.request);
}

/**
 * Counts a request that was refused before its limits were looked at, as one of its address. By itself: what clients with
 * old tokens are refused leaves the others of that address, who refresh theirs, as much room as before.
 *
 * @returns as {@link enforceLimits}  @throws AppError RATE_LIMIT_EXCEEDED
 */
export async function enforceLimitsOfRefused(
  deps: LimitDeps,
  route: LimitedRoute,
  request: Request,
): Promise<Readonly<Record<string, string>>> {
  const { general, routes } = deps.settings.rate_limits;
  const own = routes.get(route.name);
  const rate = own === undefined ? general : own;
  if (contextOf(request).isCounted || route.limits.length === 0 || rate === null) return {};
  const which = own === undefined ? "refused:" : `refused:route:${route.name}`;
  return takeAll(deps, [{ key: `${which} ip:${addressKey(contextOf(request).ip)}`, rate }], request);
}

async function takeAll(
  deps: LimitDeps,
  checks: readonly Check[],
  request: Request,
): Promise<Readonly<Record<string, string>>> {
  if (checks.length === 0) return {};
  const began = deps.clock.elapsed();
  const rooms = await deps.limiter.take(checks);
  const took = deps.clock.elapsed() - began;
  deps.metrics.record("primer_request_stage_duration_seconds", took / 1000, { stage: "limit" });
  const over = rooms.findIndex(({ waitMs }) => waitMs > 0);
  const isShadow = deps.settings.rate_limits.mode === "shadow";
  if (over >= 0) report(deps, request, checks[over], isShadow);
  const longest = Math.max(...rooms.map(({ waitMs }) => waitMs));
  const strictest = checks[rooms.findIndex(({ waitMs }) => waitMs === longest)];
  if (longest > 0 && strictest && !isShadow) throw rateLimited(longest, strictest.rate.limit);
  return headersOf(checks, rooms);
}

function report({ log, metrics }: LimitDeps, request: Request, check: Check | undefined, isShadow: boolean): void {
  const limit = check?.key.split(":")[0] ?? "general";
  metrics.count("primer_limits_hit_total", { limit, mode: isShadow ? "shadow" : "enforce" });
  log.info(isShadow ? "A request would be over a limit" : "A request was over a limit", {
    event: isShadow ? "limit.would_refuse" : "limit.refused",
    limit,
    request_id: contextOf(request).requestId,
    ip: contextOf(request).ip,
  });
}

function headersOf(checks: readonly Check[], rooms: readonly Room[]): Record<string, string> {
  const least = rooms.reduce((best, room, index) => (room.remaining < (rooms[best]?.remaining ?? 0) ? index : best), 0);
  const [check, room] = [checks[least], rooms[least]];
  if (!check || !room) return {};
  return {
    "ratelimit-limit": String(check.rate.limit),
    "ratelimit-remaining": String(room.remaining),
    "ratelimit-reset": String(Math.ceil(room.resetMs / 1000)),
  };
}
