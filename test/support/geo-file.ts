/** Writes MaxMind DB files (https://maxmind.github.io/MaxMind-DB/, version 2.0), so that tests read real ones. */
import { isIPv4 } from "node:net";

/** Numbers are written as doubles, big ones as whole numbers of 64 bits, and {@link Uint32} as what it says. */
export type GeoValue = string | number | bigint | boolean | Uint32 | { readonly [key: string]: GeoValue };

class Uint32 {
  constructor(readonly value: number) {}
}
const uint = (value: number) => new Uint32(value);

interface GeoFileOptions {
  readonly type?: string;
  readonly built?: Date;
  /** 4 leaves no room for IPv6. */
  readonly ipVersion?: 4 | 6;
}

/** A city as GeoLite2-City has it. */
export const city = (name: string, country: string, at: readonly [number, number], accuracyKm?: number) => ({
  city: { geoname_id: uint(1), names: { de: name, en: name } },
  country: { geoname_id: uint(2), iso_code: country.slice(0, 2).toUpperCase(), names: { en: country } },
  location: {
    ...(accuracyKm === undefined ? {} : { accuracy_radius: uint(accuracyKm) }),
    latitude: at[0],
    longitude: at[1],
  },
});

/** The file's bytes. @param networks what is known of each, such as "198.18.1.0/24" */
export function geoFile(networks: Readonly<Record<string, GeoValue>>, options: GeoFileOptions = {}): Buffer {
  const { type = "GeoLite2-City", built = new Date("2026-02-24T00:00:00Z"), ipVersion = 6 } = options;
  const root: Node = [undefined, undefined];
  const data: Buffer[] = [];
  let dataBytes = 0;
  for (const [network, value] of Object.entries(networks)) {
    plant(root, bitsOf(network, ipVersion), { offset: dataBytes });
    const encoded = encode(value);
    data.push(encoded);
    dataBytes += encoded.length;
  }
  const nodes = numbered(root);
  const metadata = encode({
    binary_format_major_version: uint(2),
    binary_format_minor_version: uint(0),
    build_epoch: BigInt(Math.floor(built.getTime() / 1000)),
    database_type: type,
    description: { en: "made for a test" },
    ip_version: uint(ipVersion),
    node_count: uint(nodes.size),
    record_size: uint(RECORD_BYTES * 8),
  });
  const marker = Buffer.from("abcdef4d61784d696e642e636f6d", "hex");
  return Buffer.concat([tree(nodes), Buffer.alloc(16), ...data, marker, metadata]);
}

/** Two such records are a node of the tree. */
const RECORD_BYTES = 3;

interface Leaf {
  /** Where the record begins in the data section. */
  readonly offset: number;
}
type Node = [Node | Leaf | undefined, Node | Leaf | undefined];

/** An address's bits up to the prefix; IPv4 addresses have 96 zeros before them in a tree of IPv6. */
function bitsOf(network: string, ipVersion: 4 | 6): string {
  const [address = "", prefix = ""] = network.split("/");
  if (isIPv4(address)) {
    const bits = address.split(".").map((byte) => Number(byte).toString(2).padStart(8, "0"));
    return "0".repeat(ipVersion === 6 ? 96 : 0) + bits.join("").slice(0, Number(prefix));
  }
  const [left = "", right = ""] = address.split("::");
  const groups = (text: string) => (text === "" ? [] : text.split(":"));
  const zeros = Array.from({ length: 8 - groups(left).length - groups(right).length }, () => "0");
  const bits = [...groups(left), ...zeros, ...groups(right)].map((g) => Number.parseInt(g, 16).toString(2));
  return bits
    .map((group) => group.padStart(16, "0"))
    .join("")
    .slice(0, Number(prefix));
}

function plant(root: Node, bits: string, leaf: Leaf): void {
  let node = root;
  for (const bit of bits.slice(0, -1)) {
    const next = node[Number(bit)];
    if (next && "offset" in next) throw new Error("A network lies within another");
    const below: Node = next ?? [undefined, undefined];
    node[Number(bit)] = below;
    node = below;
  }
  node[Number(bits.at(-1))] = leaf;
}

function numbered(root: Node): Map<Node, number> {
  const nodes = new Map<Node, number>([[root, 0]]);
  for (const node of nodes.keys()) {
    for (const child of node) if (Array.isArray(child)) nodes.set(child, nodes.size);
  }
  return nodes;
}

/** Each node is two records: another node's number, the number of nodes for nothing, or beyond that a place in the data. */
function tree(nodes: Map<Node, number>): Buffer {
  const bytes = Buffer.alloc(nodes.size * RECORD_BYTES * 2);
  const record = (child: Node[number]) => {
    if (child === undefined) return nodes.size;
    return Array.isArray(child) ? (nodes.get(child) ?? 0) : nodes.size + 16 + child.offset;
  };
  for (const [node, number] of nodes) {
    for (const [side, child] of node.entries())
      bytes.writeUIntBE(record(child), (number * 2 + side) * RECORD_BYTES, RECORD_BYTES);
  }
  return bytes;
}

const TYPE = { string: 2, double: 3, uint32: 6, map: 7, uint64: 9, boolean: 14 } as const;

/** The control byte, the type where it does not fit into that, and the size likewise (up to 284). */
function control(type: number, size: number): Buffer {
  const [short, rest] = size < 29 ? [size, []] : [29, [size - 29]];
  return Buffer.from(type < 8 ? [(type << 5) | short, ...rest] : [short, type - 7, ...rest]);
}

function encode(value: GeoValue): Buffer {
  if (typeof value === "string")
    return Buffer.concat([control(TYPE.string, Buffer.byteLength(value)), Buffer.from(value)]);
  if (typeof value === "boolean") return control(TYPE.boolean, value ? 1 : 0);
  const bytes = Buffer.alloc(8);
  if (typeof value === "number") {
    bytes.writeDoubleBE(value);
    return Buffer.concat([control(TYPE.double, 8), bytes]);
  }
  if (typeof value === "bigint") {
    bytes.writeBigUInt64BE(value);
    return Buffer.concat([control(TYPE.uint64, 8), bytes]);
  }
  if (value instanceof Uint32) {
    bytes.writeUInt32BE(value.value);
    return Buffer.concat([control(TYPE.uint32, 4), bytes.subarray(0, 4)]);
  }
  const entries = Object.entries(value);
  return Buffer.concat([control(TYPE.map, entries.length), ...entries.flat().map((part) => encode(part as GeoValue))]);
}
