import { createLocalJWKSet, type JSONWebKeySet, type JWTPayload, jwtVerify } from "jose";

export interface RevocationList extends JWTPayload {
  readonly complete: boolean;
  readonly revoked: Readonly<Record<string, number>>;
}

/** Verifies a list as a service would that knows nothing but the key set. */
export async function verifyList(jwt: string, keys: JSONWebKeySet, issuer: string): Promise<RevocationList> {
  const { payload } = await jwtVerify<RevocationList>(jwt, createLocalJWKSet(keys), {
    issuer,
    typ: "revocations+jwt",
    algorithms: ["RS256"],
  });
  return payload;
}

/** A stream of server-sent events that somebody reads. */
export interface Following {
  readonly status: number;
  readonly headers: Headers;
  /** The JWTs received so far. */
  readonly events: readonly string[];
  readonly comments: readonly string[];
  /** Waits until so many events were received. */
  untilEvents(count: number, withinMs?: number): Promise<void>;
  /** Waits until an event lists this session. @returns how long that took (milliseconds) */
  untilTold(sessionId: string, withinMs?: number): Promise<number>;
  /** Resolves when the stream is over: whether it ended as it should. */
  readonly ended: Promise<"ended" | "cut off">;
  leave(): Promise<void>;
}

/** What a list says, without asking who says it. */
export const listedIn = (jwt: string): Readonly<Record<string, number>> =>
  JSON.parse(Buffer.from(jwt.split(".")[1] ?? "", "base64url").toString()).revoked;

const POLL_MS = 5;

export async function follow(answer: Response | Promise<Response>): Promise<Following> {
  const { status, headers, body } = await answer;
  const events: string[] = [];
  const comments: string[] = [];
  const reader = body?.getReader();
  const decoder = new TextDecoder();

  async function read(): Promise<"ended"> {
    let text = "";
    for (;;) {
      const part = await reader?.read();
      if (!part || part.done) return "ended";
      const parts = (text + decoder.decode(part.value, { stream: true })).split("\n\n");
      text = parts.pop() ?? "";
      for (const event of parts) {
        const data = /^data: (.*)$/m.exec(event)?.[1];
        if (data !== undefined) events.push(data);
        else comments.push(event);
      }
    }
  }
  async function until(what: string, holds: () => boolean, withinMs: number): Promise<number> {
    const began = performance.now();
    while (!holds()) {
      if (performance.now() - began > withinMs) throw new Error(`No ${what} within ${withinMs} ms`);
      await Bun.sleep(POLL_MS);
    }
    return performance.now() - began;
  }
  return {
    status,
    headers,
    events,
    comments,
    ended: read().catch(() => "cut off" as const),
    async untilEvents(count, withinMs = 5000) {
      await until(`event ${count}`, () => events.length >= count, withinMs);
    },
    untilTold: (sessionId, withinMs = 2000) => {
      let looked = 0;
      const isTold = () => {
        while (looked < events.length) if (sessionId in listedIn(events[looked++] ?? "")) return true;
        return false;
      };
      return until(`word of ${sessionId}`, isTold, withinMs);
    },
    leave: async () => void (await reader?.cancel().catch(() => {})),
  };
}
