import type { Log } from "../config/log.ts";
import type { Metrics } from "../config/meter.ts";
import type { Settings } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import type { ChangeFeed, Database } from "../db/database.ts";
import type { JobQueue } from "../db/jobs.ts";
import type { Dependencies } from "./dependencies.ts";
import type { LegacyUsers } from "./features/auth/service.ts";
import type { ClientStates } from "./features/clients/service.ts";
import type { KeyRing } from "./features/keys/service.ts";
import type { NodeMetrics } from "./features/monitoring/service.ts";
import type { HashPool } from "./features/passwords/hash-pool.ts";
import type { BreachCheck } from "./features/passwords/service.ts";
import type { Revocations } from "./features/revocations/service.ts";
import type { SessionStates } from "./features/sessions/service.ts";
import type { Threats } from "./features/threats/service.ts";
import type { VerifiedTokens } from "./features/tokens/service.ts";
import type { Clock } from "./ports/clock.ts";
import type { Geo } from "./ports/geo.ts";
import type { Limiter } from "./ports/limiter.ts";
import type { Random } from "./ports/random.ts";

/**
 * What services work with. One object per process, handed to every service; `settings` and what is made from them are
 * replaced in it when settings are read again, so they are looked up at each use and never kept.
 */
export interface Deps {
  settings: Settings;
  hashPool: HashPool;
  readonly breachCheck: BreachCheck;
  /** As they count now: with what was rotated in since the process began. */
  readonly secrets: Secrets;
  readonly db: Database;
  /** What this process depends on: what monitoring shows. */
  readonly dependencies: Dependencies;
  /** Tells of what any process changes in the database. */
  readonly changes: ChangeFeed;
  readonly jobs: JobQueue;
  readonly keys: KeyRing;
  readonly sessions: SessionStates;
  readonly verifiedTokens: VerifiedTokens;
  readonly legacyUsers: LegacyUsers;
  readonly clients: ClientStates;
  readonly limiter: Limiter;
  /** Tells where addresses are. */
  readonly geo: Geo;
  /** Tells which addresses are in networks that are known for attacks. */
  readonly threats: Threats;
  /** Of this process. */
  readonly metrics: Metrics;
  /** Of all processes that work in the same home. */
  readonly nodeMetrics: NodeMetrics;
  /** Tells services that verify tokens by themselves which sessions have ended. */
  readonly revocations: Revocations;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly version: string;
  /** Whether this process is winding down: then it is alive, and not ready. */
  readonly lifecycle: { draining: boolean };
}

/** Who asks and from where: what login records, sessions and the audit log keep of a request. */
export interface Caller {
  readonly requestId: string | null;
  readonly ip: string | null;
  readonly userAgent: string | null;
}
