import { readFile, stat } from "node:fs/promises";
import { isIP } from "node:net";
import { resolve } from "node:path";
import type { CityResponse, Reader } from "maxmind";
import { misused, textOf } from "../../config/errors.ts";
import type { Place } from "./geo.ts";

/** A GeoIP file as it was when it was read. */
export interface GeoFile {
  readonly path: string;
  /** Such as "GeoLite2-City". */
  readonly type: string;
  readonly built: Date;
  /** @throws where the file turns out to be damaged */
  placeOf(ip: string): Place | undefined;
}

/** Addresses move: an older file is too often wrong (days). */
export const OLD_GEOIP_DAYS = 60;
/** Larger than any such file, and small enough to be held twice while one replaces the other. */
const MAX_BYTES = 1024 ** 3;

/**
 * Reads a MaxMind DB file (https://maxmind.github.io/MaxMind-DB/) with cities into memory.
 *
 * @param name the setting `accounts.geoip_file`
 * @param home what a relative path starts from
 * @throws OperatorError (exit 2) naming the setting, the file and what to do, where it cannot be read, is not whole or
 *   does not say where addresses are
 */
export async function readGeoFile(name: string, home: string): Promise<GeoFile> {
  const path = resolve(home, name);
  const bytes = await readBytes(path).catch((error) => {
    throw misused(
      `accounts.geoip_file: ${path} cannot be read: ${textOf(error)}`,
      "See that accounts.geoip_file names the file, and that the user primer runs as may read it.",
      error,
    );
  });
  const reader = await openReader(bytes).catch((error) => {
    throw misused(
      `accounts.geoip_file: ${path} is of no use: ${textOf(error)}`,
      "Name a MaxMind DB file with cities such as GeoLite2-City.mmdb, unpacked; if it is that, download it again.",
      error,
    );
  });
  const { databaseType: type, buildEpoch: built, ipVersion } = reader.metadata;
  const isIn = (ip: string) => isIP(ip) === 4 || (isIP(ip) === 6 && ipVersion === 6);
  return { path, type, built, placeOf: (ip) => (isIn(ip) ? placeIn(reader.get(ip)) : undefined) };
}

/** Not of a pipe, which would never end, nor of what does not fit. */
async function readBytes(path: string): Promise<Buffer> {
  const found = await stat(path);
  if (!found.isFile()) throw new Error("it is not a file");
  if (found.size > MAX_BYTES) throw new Error(`it is larger than ${MAX_BYTES} bytes`);
  return readFile(path);
}

const METADATA_MARKER = Buffer.from("\xab\xcd\xefMaxMind.com", "latin1");
/** The metadata are the last thing in a file, and at most so long. */
const METADATA_BYTES = 128 * 1024;
const SEPARATOR_BYTES = 16;
/** An address in each /8: a file for the whole world knows most of them. */
const SAMPLES = Array.from({ length: 223 }, (_, index) => `${index + 1}.0.0.1`);

/** Throws where the bytes cannot be those of a whole file, or where they know addresses and not where those are. */
async function openReader(bytes: Buffer): Promise<Reader<CityResponse>> {
  if (!bytes.subarray(-METADATA_BYTES).includes(METADATA_MARKER)) throw new Error("it does not end as such files do");
  const { Reader } = await import("maxmind");
  const reader = new Reader<CityResponse>(bytes);
  const { searchTreeSize, databaseType, buildEpoch } = reader.metadata;
  const separator = bytes.subarray(searchTreeSize, searchTreeSize + SEPARATOR_BYTES);
  if (separator.length < SEPARATOR_BYTES || separator.some((byte) => byte !== 0)) {
    throw new Error("its parts are not where they should be");
  }
  if (typeof databaseType !== "string" || Number.isNaN(buildEpoch.getTime())) throw new Error("its end is damaged");
  const samples = SAMPLES.map((ip) => reader.get(ip)).filter((record) => record !== null);
  if (samples.length > 0 && !samples.some(placeIn)) {
    throw new Error(`it does not say where addresses are (its type is "${databaseType}")`);
  }
  return reader;
}

/** Where a file says nothing of how exact it is: a city may be so large, and a country. */
const CITY_KM = 100;
const COUNTRY_KM = 1000;

/**
 * The place in a record. None where an address does not tell where its user is: anycast, satellites. Throws where it
 * is no place on earth.
 */
function placeIn(record: CityResponse | null): Place | undefined {
  const { location, traits } = record ?? {};
  if (location?.latitude === undefined || location.longitude === undefined) return undefined;
  if (traits?.is_anycast || traits?.is_satellite_provider) return undefined;
  const { latitude, longitude } = location;
  if (!(Math.abs(latitude) <= 90 && Math.abs(longitude) <= 180)) throw new Error("A place is not on earth");
  const city = record?.city?.names?.en;
  const country = record?.country?.names?.en ?? record?.country?.iso_code;
  return {
    ...(city === undefined ? {} : { city }),
    ...(country === undefined ? {} : { country }),
    latitude,
    longitude,
    accuracyKm: location.accuracy_radius ?? (city === undefined ? COUNTRY_KM : CITY_KM),
  };
}
