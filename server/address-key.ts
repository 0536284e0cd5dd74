/** What an address is counted as: an IPv4 address; of IPv6 the /64, which is one household's or one machine's. */
export function addressKey(ip: string | null): string {
  if (ip === null) return "unknown";
  if (!ip.includes(":")) return ip;
  const [head = "", tail] = ip.split("::");
  const groups = head === "" ? [] : head.split(":");
  const missing = tail === undefined ? 0 : 8 - groups.length - (tail === "" ? 0 : tail.split(":").length);
  const all = [...groups, ...Array.from({ length: missing }, () => "0"), ...(tail ? tail.split(":") : [])];
  return `${all
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(":")}::/64`;
}

/** The network that an address is in, a home's or an office's as a rule: of IPv4 the /24, of IPv6 the /48. */
export function networkKey(ip: string): string {
  if (!ip.includes(":")) return `${ip.slice(0, ip.lastIndexOf("."))}.0/24`;
  return `${addressKey(ip).split(":").slice(0, 3).join(":")}::/48`;
}
