/** The requests of each kind as they go over the wire, and what a session needs to send them. */
import { systemRandom } from "../../server/ports/random.ts";
import type { HttpConnection, Reply, Target } from "./http-connection.ts";
import type { Kind } from "./scenarios.ts";

export interface Account {
  readonly username: string;
  readonly password: string;
}

/** Who logs in: these, or as many as were seeded. */
export type Accounts = readonly Account[] | { readonly seeded: number; readonly password: string };

/** The user with this number in a scratch home. */
export const seededName = (number: number): string => `bench-${number}`;

/** The account whose turn it is at the n-th login. */
export function accountAt(accounts: Accounts, turn: number): Account {
  if ("seeded" in accounts) return { username: seededName(turn % accounts.seeded), password: accounts.password };
  const account = accounts[turn % accounts.length];
  if (!account) throw new Error("There is no account to log in with");
  return account;
}

/** Where requests go, and with what. */
export interface Destination {
  readonly target: Target;
  /** What stands in the Host header. */
  readonly authority: string;
  readonly accounts: Accounts;
  /** A service client, for introspection. */
  readonly client: { readonly id: string; readonly secret: string } | null;
  /** Names of accounts that the bench registers begin with this. */
  readonly prefix: string;
}

export interface Tokens {
  readonly access_token: string;
  readonly refresh_token: string;
  readonly expires_in: number;
}

/** A session that one connection works with. */
export interface Session extends Tokens {
  /** When its access token ends, by `performance.now()`. */
  readonly endsAt: number;
}

export function sessionOf(body: Buffer): Session | undefined {
  try {
    const tokens = JSON.parse(body.toString()) as Tokens;
    if (typeof tokens.access_token !== "string" || typeof tokens.refresh_token !== "string") return undefined;
    const { access_token, refresh_token, expires_in } = tokens;
    return { access_token, refresh_token, expires_in, endsAt: performance.now() + expires_in * 1000 };
  } catch {
    return undefined;
  }
}

export interface Requests {
  login(account: Account): string;
  refresh(session: Tokens): string;
  verify(session: Tokens): string;
  introspect(session: Tokens): string;
  register(account: Account): string;
  logout(session: Tokens): string;
  deactivate(session: Tokens): string;
}

export function requestsTo({ authority, client }: Pick<Destination, "authority" | "client">): Requests {
  const head = `host: ${authority}\r\nuser-agent: primer-bench\r\naccept: application/json\r\n`;
  const withBody = (line: string, type: string, body: string) =>
    `${line} HTTP/1.1\r\n${head}content-type: ${type}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
  const post = (path: string, body: unknown) => withBody(`POST ${path}`, "application/json", JSON.stringify(body));
  const bearer = ({ access_token }: Tokens) => `authorization: Bearer ${access_token}\r\n`;
  return {
    login: ({ username, password }) => post("/api/v1/auth/login", { username, password, device_name: "primer bench" }),
    refresh: ({ refresh_token }) => post("/api/v1/auth/refresh", { refresh_token }),
    verify: (session) => `GET /api/v1/auth/verify HTTP/1.1\r\n${head}${bearer(session)}\r\n`,
    introspect: ({ access_token }) => {
      const form = new URLSearchParams({
        token: access_token,
        client_id: client?.id ?? "",
        client_secret: client?.secret ?? "",
      });
      return withBody("POST /oauth2/introspect", "application/x-www-form-urlencoded", form.toString());
    },
    register: ({ username, password }) =>
      post("/api/v1/auth/register", { username, email: `${username}@bench.invalid`, password }),
    logout: ({ refresh_token }) => post("/api/v1/auth/logout", { refresh_token }),
    deactivate: (session) => `DELETE /api/v1/users/me HTTP/1.1\r\n${head}${bearer(session)}\r\n`,
  };
}

/** As password managers make them; how long the server estimates one depends on its length. */
const PASSWORD_LENGTH = 24;

/** Somebody new, with a password that the default policy takes. */
export function newAccount(prefix: string, number: number): Account {
  const password = `.aA1${systemRandom.token()}`.slice(0, PASSWORD_LENGTH);
  return { username: `${prefix}-${number.toString(36)}`, password };
}

/** One request and its reply. */
export const exchange = (connection: HttpConnection, request: string): Promise<Reply> =>
  new Promise((resolve) => connection.send(request, resolve));

/** What an answer that is no success is counted as: its status and the code of the envelope. */
export function errorName(reply: Reply): string {
  if ("failure" in reply) return reply.failure;
  if (reply.status === 200) return "200 inactive";
  const { error } = parsed(reply.body);
  const code = typeof error === "object" && error !== null ? (error as { code?: unknown }).code : error;
  return typeof code === "string" ? `${reply.status} ${code}` : String(reply.status);
}

function parsed(body: Buffer): { error?: unknown } {
  try {
    return (JSON.parse(body.toString()) ?? {}) as { error?: unknown };
  } catch {
    return {};
  }
}

/** Whether a request did what it was for. An introspection is answered with 200 also where the token counts no more. */
export const isSuccess = (kind: Kind | undefined, { status, body }: { status: number; body: Buffer }): boolean =>
  status >= 200 && status < 300 && (kind !== "introspect" || body.includes('"active":true'));

/** The target of a URL. */
export function targetOf(url: string, ca?: string): Target {
  const { protocol, hostname, port } = new URL(url);
  const host = hostname.replace(/^\[|\]$/g, "");
  const isTls = protocol === "https:";
  return {
    host,
    port: Number(port) || (isTls ? 443 : 80),
    tls: isTls ? { ...(ca === undefined ? {} : { ca }) } : undefined,
  };
}
