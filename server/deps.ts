import type { Log } from "../config/log.ts";
import type { Settings } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import type { Database } from "../db/database.ts";
import type { JobQueue } from "../db/jobs.ts";
import type { KeyRing } from "./features/keys/key-ring.ts";
import type { HashPool } from "./features/passwords/hash-pool.ts";
import type { Clock } from "./ports/clock.ts";
import type { Random } from "./ports/random.ts";

/**
 * What services work with. One object per process, handed to every service; `settings` and what is made from them are
 * replaced in it when settings are read again, so they are looked up at each use and never kept.
 */
export interface Deps {
  settings: Settings;
  hashPool: HashPool;
  readonly secrets: Secrets;
  readonly db: Database;
  readonly jobs: JobQueue;
  readonly keys: KeyRing;
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
