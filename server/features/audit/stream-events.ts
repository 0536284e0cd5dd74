import type { Deps } from "../../deps.ts";
import { unavailable } from "../../errors.ts";
import { type EventQuery, listEventPage } from "./list-events.ts";
import type { AuditEvent } from "./record.ts";
import { recordExport } from "./record-export.ts";

/** Events that are read and sent at a time. */
const AT_ONCE = 200;
/** Exports that one process sends at the same time; one more is answered 503. */
const MAX_EXPORTS = 4;
/** A reader who takes nothing for this long is cut off (milliseconds). */
const SLOWEST_MS = 20_000;
/** No export takes longer (milliseconds): what has not been sent by then has to be asked for by a shorter time. */
const LONGEST_MS = 15 * 60_000;
/** How often it is looked whether the reader still may (milliseconds). */
const RIGHTS_MS = 1000;
const RETRY_AFTER_SECONDS = 10;

let open = 0;

interface Export {
  readonly query: EventQuery;
  readonly by: Pick<AuditEvent, "actor" | "caller">;
  /** @throws AppError where the reader may not read any more */
  assertMayRead(): Promise<void>;
  /** Fires when the client is gone. */
  readonly signal: AbortSignal;
  /** Closes the connection of a reader who does not read. */
  drop(): void;
}

/**
 * Every event asked for, newest first, as lines of JSON. No more is read than what was sent; nothing of the database is
 * held between two readings. Where it breaks off, so does the connection: what ends as it should is whole. It breaks off
 * within a second or two after the reader lost the right to it, and after {@link LONGEST_MS}. That somebody took it is in the
 * audit log itself.
 *
 * @throws AppError VALIDATION_FAILED for a time that is none, SERVICE_UNAVAILABLE where there are too many
 */
export async function streamEvents(
  deps: Deps,
  { query, by, assertMayRead, signal, drop }: Export,
): Promise<ReadableStream<Uint8Array>> {
  if (open >= MAX_EXPORTS) throw unavailable("Too many exports of the audit log", undefined, RETRY_AFTER_SECONDS);
  open++;
  let cursor: string | undefined;
  let timer: Timer | undefined;
  let isOver = false;
  const end = () => {
    if (isOver) return;
    isOver = true;
    open--;
    clearTimeout(timer);
  };
  await recordExport(deps, query, { ...by, format: "ndjson" }).catch((error) => {
    end();
    throw error;
  });
  const began = deps.clock.elapsed();
  let checkedAt = began;
  const assertMayGoOn = async () => {
    const now = deps.clock.elapsed();
    if (now - began > LONGEST_MS) throw new Error("An export of the audit log took too long");
    if (now - checkedAt < RIGHTS_MS) return;
    await assertMayRead();
    checkedAt = now;
  };
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        watch(controller);
        signal.addEventListener("abort", end, { once: true });
        if (signal.aborted) end();
      },
      async pull(controller) {
        try {
          await assertMayGoOn();
          const page = await listEventPage(deps, { ...query, limit: AT_ONCE, cursor });
          if (isOver) return; // whoever asked has gone meanwhile
          controller.enqueue(new TextEncoder().encode(page.data.map((event) => `${JSON.stringify(event)}\n`).join("")));
          cursor = page.next_cursor ?? undefined;
          watch(controller);
          if (cursor !== undefined) return;
          end();
          controller.close();
        } catch (error) {
          if (isOver) return;
          deps.log.warn("An export of the audit log broke off", { event: "audit.export_broken", error });
          end();
          controller.error(error);
          drop();
        }
      },
      cancel: end,
    },
    { highWaterMark: 0 },
  );

  function watch(controller: ReadableStreamDefaultController<Uint8Array>): void {
    clearTimeout(timer);
    timer = setTimeout(() => {
      deps.log.info("An export of the audit log was not read and was cut off", { event: "audit.export_cut_off" });
      end();
      controller.error(new Error("The client does not read"));
      drop();
    }, SLOWEST_MS);
  }
}
