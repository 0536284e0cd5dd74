import { isIP } from "node:net";

/**
 * The address of the client: the peer of the connection, unless that is one of our own proxies; then the right-most
 * address of X-Forwarded-For that is not one of them. What cannot be read as an address is as if it were not there.
 *
 * @param isProxy whether an address is a trusted proxy's
 */
export function clientAddress(
  peer: string | null,
  forwardedFor: string | null,
  isProxy: (address: string) => boolean,
): string | null {
  const direct = peer === null ? null : plainAddress(peer);
  if (direct === null || forwardedFor === null || !isProxy(direct)) return direct;
  const hops = forwardedFor.split(",").map((hop) => plainAddress(hop.trim()));
  let client = direct;
  for (const hop of hops.reverse()) {
    if (hop === null) return client;
    client = hop;
    if (!isProxy(hop)) return client;
  }
  return client;
}

const WRAPPED_IN_HEX = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/i;

/** Without brackets, port, zone or the IPv6 wrapping of an IPv4 address; null where it is no address. */
function plainAddress(text: string): string | null {
  if (isIP(text) === 4) return text; // as almost all are
  const bare = text
    .replace(/^\[([^\]]+)\](:\d+)?$/, "$1")
    .replace(/^(\d+\.\d+\.\d+\.\d+):\d+$/, "$1")
    .replace(/%.*$/, "")
    .replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, "")
    .replace(WRAPPED_IN_HEX, (_, high: string, low: string) => {
      const [a, b] = [Number.parseInt(high, 16), Number.parseInt(low, 16)];
      return [a >> 8, a & 255, b >> 8, b & 255].join(".");
    });
  return isIP(bare) === 0 ? null : bare.toLowerCase();
}
