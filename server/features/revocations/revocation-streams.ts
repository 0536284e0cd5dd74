import type { Deps } from "../../deps.ts";
import { unavailable } from "../../errors.ts";
import type { RevocationList } from "./revocation-list.ts";

/** Streams that one process keeps open; one more is answered 503. */
export const MAX_STREAMS = 1000;
/** Of these, streams of one address: nobody takes them all. */
export const MAX_STREAMS_OF_ONE = 100;
/** How often streams are told what is new (milliseconds): all of it at once, read and signed once for all of them. */
const BATCH_MS = 250;
/** An open stream says this often that it is there (milliseconds); the listener closes what is silent for 30 s. */
const BEAT_MS = 10_000;
/** Streams end when what they tell could not be made sure of for this long (milliseconds). */
const UNSURE_AFTER_MS = 10_000;
/** A reader that leaves more than this unread, beside the first event, is cut off (bytes). */
const MAX_UNREAD_BYTES = 256 * 1024;
const RETRY_AFTER_SECONDS = 5;

const bytes = new TextEncoder();
const BEAT = bytes.encode(": still here\n\n");
/** Says nothing, but headers are sent with it. */
const OPENING = bytes.encode("\n");
/** Whoever loses the stream is to come back after a second. */
const firstEventOf = (jwt: string) => bytes.encode(`retry: 1000\ndata: ${jwt}\n\n`);
const eventOf = (jwt: string) => bytes.encode(`data: ${jwt}\n\n`);

/** The connection that a stream goes over. */
export interface StreamPeer {
  /** What the client's address is counted as. */
  readonly address: string;
  /** Fires when the client is gone. */
  readonly signal: AbortSignal;
  /** Closes the connection although the client does not read what was sent. */
  drop(): void;
}

export interface RevocationStreams {
  /**
   * Server-sent events: first the whole list, then what is new, each a signed JWT. An open stream is never more than a
   * few seconds behind the table: where that cannot be made sure of, it is ended.
   *
   * @throws AppError SERVICE_UNAVAILABLE where there are too many, of all or of one address, or the process is stopping
   */
  open(peer: StreamPeer): Promise<ReadableStream<Uint8Array>>;
  /** Ends every stream, for good. */
  close(): void;
}

interface Stream {
  readonly peer: StreamPeer;
  readonly controller: ReadableStreamDefaultController<Uint8Array>;
  /** The size of the first event, once it was sent. */
  firstBytes?: number;
}

type StreamDeps = Pick<Deps, "clock" | "log">;

export function createRevocationStreams(deps: () => StreamDeps, list: RevocationList): RevocationStreams {
  const streams = new Set<Stream>();
  let timer: Timer | undefined;
  let closed = false;
  let busy = false;
  let sureAt = 0;
  let beatAt = 0;
  let fails = false;

  function leave(stream: Stream): void {
    streams.delete(stream);
    if (streams.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  }

  function end(stream: Stream): void {
    if (!streams.has(stream)) return;
    leave(stream);
    stream.controller.close();
    // What is still unread must not keep the connection, nor whoever waits for it.
    stream.peer.drop();
  }

  function send(stream: Stream, chunk: Uint8Array): void {
    const unread = -(stream.controller.desiredSize ?? 0);
    if (unread > MAX_UNREAD_BYTES + (stream.firstBytes ?? 0)) cutOff(stream);
    else stream.controller.enqueue(chunk);
  }

  function cutOff(stream: Stream): void {
    leave(stream);
    stream.controller.error(new Error("The client does not read"));
    stream.peer.drop();
    deps().log.info("A stream of revocations was not read and was cut off", { event: "revocations.cut_off" });
  }

  async function tell(): Promise<void> {
    await list.refresh();
    sureAt = deps().clock.elapsed();
    if (![...streams].some(isJoined)) list.skipNews();
    const news = await list.takeNews();
    if (news !== undefined) sendAll([...streams].filter(isJoined), eventOf(news));
    const joining = [...streams].filter((stream) => !isJoined(stream));
    if (joining.length === 0) return;
    const first = firstEventOf((await list.complete()).jwt);
    for (const stream of joining.filter((candidate) => streams.has(candidate))) {
      stream.firstBytes = first.length;
      send(stream, first);
    }
  }

  function sendAll(to: readonly Stream[], chunk: Uint8Array): void {
    for (const stream of to) send(stream, chunk);
  }

  function report(works: boolean, error?: unknown): void {
    if (fails === !works) return;
    fails = !works;
    if (works) deps().log.info("Revocations are read again", { event: "revocations.read" });
    else deps().log.warn("Revocations could not be read", { event: "revocations.not_read", error });
  }

  async function turn(): Promise<void> {
    if (busy) return;
    busy = true;
    await tell().then(
      () => report(true),
      (error) => report(false, error),
    );
    busy = false;
    const now = deps().clock.elapsed();
    if (now - sureAt > UNSURE_AFTER_MS) for (const stream of streams) end(stream);
    if (fails || now - beatAt < BEAT_MS) return;
    beatAt = now;
    sendAll([...streams].filter(isJoined), BEAT);
  }

  function join(peer: StreamPeer): { stream: Stream; body: ReadableStream<Uint8Array> } {
    let opened: Stream | undefined;
    const body = new ReadableStream<Uint8Array>(
      {
        start(controller) {
          opened = { peer, controller };
          controller.enqueue(OPENING);
        },
        cancel: () => gone(),
      },
      new ByteLengthQueuingStrategy({ highWaterMark: 0 }),
    );
    const stream = opened as unknown as Stream;
    const gone = () => leave(stream);
    streams.add(stream);
    timer ??= setInterval(turn, BATCH_MS);
    peer.signal.addEventListener("abort", gone, { once: true });
    if (peer.signal.aborted) gone();
    return { stream, body };
  }

  return {
    async open(peer) {
      const ofOne = [...streams].filter((stream) => stream.peer.address === peer.address).length;
      if (closed || streams.size >= MAX_STREAMS || ofOne >= MAX_STREAMS_OF_ONE) {
        throw unavailable(closed ? "Stopping" : "Too many streams", undefined, RETRY_AFTER_SECONDS);
      }
      const { stream, body } = join(peer);
      try {
        await list.refresh();
        sureAt = deps().clock.elapsed();
        return body;
      } catch (error) {
        leave(stream);
        throw error;
      }
    },
    close() {
      closed = true;
      for (const stream of streams) end(stream);
    },
  };
}

/** Whether it has had its first event. */
const isJoined = (stream: Stream): boolean => stream.firstBytes !== undefined;
