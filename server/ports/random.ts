/** The only source of randomness: the operating system's generator. */
export interface Random {
  bytes(length: number): Uint8Array;
  /** A UUIDv7: unique, and in the order of the time given. */
  id(at: Date): string;
  /** An opaque token of 256 bits in base64url, 43 characters. */
  token(): string;
}

const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Whether a value is an id as {@link Random.id} makes it: the database refuses to compare anything else with one. */
export const isId = (value: unknown): value is string => typeof value === "string" && ID.test(value);

const bytes = (length: number) => crypto.getRandomValues(new Uint8Array(length));

export const systemRandom: Random = {
  bytes,
  id: (at) => Bun.randomUUIDv7("hex", at.getTime()),
  token: () => Buffer.from(bytes(32)).toString("base64url"),
};
