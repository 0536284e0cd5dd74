import { describe, expect, test } from "bun:test";
import { matchesNetwork } from "../../../config/kinds.ts";
import { clientAddress } from "../../../server/http/client-address.ts";
import { openListeningApp } from "../support/http-app.ts";

const PROXIES = ["10.0.0.0/8", "127.0.0.1", "2001:db8:1::/48"];
const isProxy = matchesNetwork(PROXIES);

interface Case {
  readonly name: string;
  readonly peer: string | null;
  readonly forwarded: string | null;
  readonly client: string | null;
}

const CASES: readonly Case[] = [
  { name: "no proxy, no header", peer: "198.51.100.7", forwarded: null, client: "198.51.100.7" },
  {
    name: "a stranger's header is not believed",
    peer: "198.51.100.7",
    forwarded: "203.0.113.9",
    client: "198.51.100.7",
  },
  { name: "a proxy's header is", peer: "10.1.2.3", forwarded: "203.0.113.9", client: "203.0.113.9" },
  { name: "a proxy without a header", peer: "10.1.2.3", forwarded: null, client: "10.1.2.3" },
  { name: "an empty header", peer: "10.1.2.3", forwarded: "", client: "10.1.2.3" },
  {
    name: "what the client wrote in front counts for nothing",
    peer: "10.1.2.3",
    forwarded: "1.1.1.1, 203.0.113.9",
    client: "203.0.113.9",
  },
  {
    name: "proxies behind proxies are passed over",
    peer: "10.1.2.3",
    forwarded: "1.1.1.1, 203.0.113.9, 10.9.9.9",
    client: "203.0.113.9",
  },
  { name: "only proxies: the furthest of them", peer: "10.1.2.3", forwarded: "10.7.7.7, 10.9.9.9", client: "10.7.7.7" },
  { name: "rubbish is as if it were not there", peer: "10.1.2.3", forwarded: "what-is-this", client: "10.1.2.3" },
  {
    name: "rubbish before the client",
    peer: "10.1.2.3",
    forwarded: "what-is-this, 203.0.113.9",
    client: "203.0.113.9",
  },
  {
    name: "rubbish hides what stands before it",
    peer: "10.1.2.3",
    forwarded: "203.0.113.9, what-is-this",
    client: "10.1.2.3",
  },
  { name: "rubbish between two proxies", peer: "10.1.2.3", forwarded: "203.0.113.9, x, 10.9.9.9", client: "10.9.9.9" },
  { name: "SQL", peer: "10.1.2.3", forwarded: "' OR 1=1--", client: "10.1.2.3" },
  { name: "an address with octets too large", peer: "10.1.2.3", forwarded: "203.0.113.999", client: "10.1.2.3" },
  { name: "an address with a port", peer: "10.1.2.3", forwarded: "203.0.113.9:4711", client: "203.0.113.9" },
  { name: "spaces around it", peer: "10.1.2.3", forwarded: "   203.0.113.9\t", client: "203.0.113.9" },
  { name: "IPv6", peer: "10.1.2.3", forwarded: "2001:DB8:2::7", client: "2001:db8:2::7" },
  { name: "IPv6 in brackets with a port", peer: "10.1.2.3", forwarded: "[2001:db8:2::7]:443", client: "2001:db8:2::7" },
  { name: "an IPv6 proxy", peer: "2001:db8:1::1", forwarded: "203.0.113.9", client: "203.0.113.9" },
  {
    name: "an IPv6 neighbour of the proxies",
    peer: "2001:db8:2::1",
    forwarded: "203.0.113.9",
    client: "2001:db8:2::1",
  },
  { name: "an IPv4 proxy written as IPv6", peer: "::ffff:10.1.2.3", forwarded: "203.0.113.9", client: "203.0.113.9" },
  {
    name: "an IPv4 client written as IPv6",
    peer: "::ffff:198.51.100.7",
    forwarded: "203.0.113.9",
    client: "198.51.100.7",
  },
  { name: "no peer is known", peer: null, forwarded: "203.0.113.9", client: null },
  { name: "a peer that is no address", peer: "unix", forwarded: "203.0.113.9", client: null },
];

describe("the client's address", () => {
  // Limits and records count by an address that the client cannot choose: only our own proxies are believed.
  for (const { name, peer, forwarded, client } of CASES) {
    test(name, () => expect(clientAddress(peer, forwarded, isProxy)).toBe(client));
  }

  // Without proxies in the settings no header changes anything.
  test("no proxies are trusted by default", () => {
    expect(clientAddress("127.0.0.1", "203.0.113.9", matchesNetwork([]))).toBe("127.0.0.1");
  });

  // A header of many thousand hops is read in no time.
  test("10,000 hops", () => {
    const started = performance.now();
    expect(clientAddress("10.1.2.3", Array(10_000).fill("10.0.0.1").join(","), isProxy)).toBe("10.0.0.1");
    expect(performance.now() - started).toBeLessThan(1000);
  });

  const HEADERS = ["x-forwarded-for", "forwarded", "x-real-ip", "cf-connecting-ip", "true-client-ip", "x-client-ip"];

  // What is recorded of a login is the peer, whatever headers the client sends.
  test("no header moves the address in the records", async () => {
    const app = await openListeningApp();
    try {
      for (const name of HEADERS) {
        await app.request("POST", "/api/v1/auth/login", {
          body: { username: "nobody", password: "x" },
          headers: { [name]: name === "forwarded" ? "for=203.0.113.9" : "203.0.113.9" },
        });
      }
      const rows = await app.db.query<{ ip: string }>("SELECT ip FROM login_records");
      expect(rows).toEqual(HEADERS.map(() => ({ ip: "127.0.0.1" })));
    } finally {
      await app.close();
    }
  });
});
