import { type Breaker, findOutWhenBack } from "../../db/breaker.ts";
import type { RedisScripts } from "../../db/redis.ts";
import { type Check, type Limiter, MOMENTS_PER_WINDOW, type Room } from "./limiter.ts";

/** One hash tag: a script may only touch keys of one slot of a cluster. */
const PREFIX = "primer:{limits}:";

/**
 * Counts under all keys in one step, by the server's own clock. Of each key a hash holds how many there were in each
 * moment and when its last one was. ARGV: "take" or "look", then for each key its limit and its window in milliseconds.
 */
const SCRIPT = {
  name: "primerTakeRoom",
  lua: `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers, refused, states = {}, false, {}
for i, key in ipairs(KEYS) do
  local limit, window = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local moments, used, last = {}, 0, 0
  local fields = redis.call('HGETALL', key)
  for f = 1, #fields, 2 do
    local count, at = string.match(fields[f + 1], '^(%d+),(%d+)$')
    count, at = tonumber(count), tonumber(at)
    if at + window <= now then redis.call('HDEL', key, fields[f])
    else
      moments[#moments + 1] = { at = at, count = count }
      used = used + count
      if at > last then last = at end
    end
  end
  table.sort(moments, function(a, b) return a.at < b.at end)
  local wait, left = 0, used - limit
  for _, moment in ipairs(moments) do
    if left < 0 then break end
    left = left - moment.count
    if left < 0 then wait = moment.at + window - now end
  end
  if wait > 0 then refused = true end
  states[i] = { limit = limit, window = window, used = used, last = last, wait = wait }
end
for i, key in ipairs(KEYS) do
  local state = states[i]
  if ARGV[1] == 'take' and not refused then
    local size = math.max(1, math.floor(state.window / ${MOMENTS_PER_WINDOW}))
    local field = tostring(math.floor(now / size))
    local known = redis.call('HGET', key, field)
    local count = known and tonumber(string.match(known, '^%d+')) or 0
    redis.call('HSET', key, field, (count + 1) .. ',' .. now)
    redis.call('PEXPIRE', key, state.window + size)
    state.used = state.used + 1
    state.last = now
  end
  local reset = state.last > 0 and state.last + state.window - now or 0
  answers[#answers + 1] = math.max(0, state.limit - state.used)
  answers[#answers + 1] = state.wait
  answers[#answers + 1] = reset
end
return answers`,
} as const;

/**
 * Counts in Redis, for all processes together. While it does not answer, `fallback` counts: nobody waits for it, nothing
 * is refused for it, and no limit is left open.
 */
export function createRedisLimiter(redis: RedisScripts, fallback: Limiter, breaker: Breaker): Limiter {
  async function ask(mode: "take" | "look", checks: readonly Check[]): Promise<Room[]> {
    const keys = checks.map(({ key }) => PREFIX + key);
    const args = checks.flatMap(({ rate }) => [String(rate.limit), String(rate.windowMs)]);
    const answer = (await redis.run(SCRIPT, keys, [mode, ...args])) as number[];
    return checks.map((_, index) => ({
      remaining: answer[3 * index] ?? 0,
      waitMs: answer[3 * index + 1] ?? 0,
      resetMs: answer[3 * index + 2] ?? 0,
    }));
  }
  findOutWhenBack(breaker, redis.ping, redis.isClosed);
  async function unlessAway(mode: "take" | "look", checks: readonly Check[]): Promise<Room[]> {
    try {
      breaker.assertClosed();
      return await breaker.run(() => ask(mode, checks));
    } catch {
      return fallback[mode](checks);
    }
  }
  return { take: (checks) => unlessAway("take", checks), look: (checks) => unlessAway("look", checks) };
}
