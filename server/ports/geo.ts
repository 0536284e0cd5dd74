import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import type { Log } from "../../config/log.ts";
import { type GeoFile, readGeoFile } from "./geo-file.ts";

/** Where an address is, as far as the GeoIP file knows. */
export interface Place {
  /** In English. */
  readonly city?: string;
  /** In English. */
  readonly country?: string;
  /** In degrees. */
  readonly latitude: number;
  readonly longitude: number;
  /** How far around that point the address may be (kilometres). */
  readonly accuracyKm: number;
}

/** Where addresses are. Nothing is known of any of them where no file is configured or it is of no use. */
export interface Geo {
  /** Takes microseconds and never throws. */
  placeOf(ip: string): Place | undefined;
  /** Reads the file again, whether it has changed or not. Resolves when it is in use or was refused; never rejects. */
  reread(): Promise<void>;
  close(): void;
}

/** How often is looked whether the file has changed (milliseconds). */
const LOOK_EVERY_MS = 2000;

/**
 * Keeps the places of the configured file in memory: reads it now, when it has changed and when it is told to. Each
 * lookup sees one file or the other. A file that is of no use changes nothing but the log, which says so once; a server
 * starts and serves without.
 *
 * @param parts.file the setting as it is now; the file's path starts from `home`
 */
export function openGeo(parts: { readonly home: string; readonly file: () => string; readonly log: Log }): Geo {
  const { home, file, log } = parts;
  let current: GeoFile | undefined;
  let seen: string | undefined;
  let isReading = false;
  let reading = Promise.resolve();

  async function readIfChanged(): Promise<void> {
    const name = file();
    const version = name === "" ? "" : await versionOf(resolve(home, name));
    if (version === seen) return;
    seen = version;
    if (name === "") {
      current = undefined;
      return;
    }
    try {
      current = await readGeoFile(name, home);
      const { path, type, built } = current;
      log.info("The GeoIP file is in use", { event: "geoip.read", path, type, built: built.toISOString() });
    } catch (error) {
      const meanwhile = current ? "the one from before stays" : "sign-ins are judged without places";
      log.warn(`The GeoIP file is of no use; ${meanwhile}`, { event: "geoip.refused", error });
    }
  }

  function look(): Promise<void> {
    reading = reading.then(async () => {
      isReading = true;
      await readIfChanged();
      isReading = false;
    });
    return reading;
  }

  look();
  const timer = setInterval(() => {
    if (!isReading) look();
  }, LOOK_EVERY_MS);
  return {
    placeOf(ip) {
      try {
        return current?.placeOf(ip);
      } catch (error) {
        log.warn("The GeoIP file is damaged; it is not used until it is replaced", { event: "geoip.damaged", error });
        current = undefined;
        return undefined;
      }
    },
    reread() {
      seen = undefined;
      return look();
    },
    close: () => clearInterval(timer),
  };
}

/** What changes when another file is put there, when it is written to, and when it can be read at last. */
async function versionOf(path: string): Promise<string> {
  const found = await stat(path).catch(() => undefined);
  return found ? `${path} ${found.ino} ${found.size} ${found.mtimeMs} ${found.ctimeMs}` : `${path} is not there`;
}
