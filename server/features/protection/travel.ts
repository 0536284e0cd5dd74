import type { Place } from "../../ports/geo.ts";

const EARTH_RADIUS_KM = 6371;
/** An airliner's speed. Nobody flies faster, and whoever flies also has to get to the airport. */
const FASTEST_KMH = 900;
/** What is nearer is no journey: a phone's network may put it into another city from one minute to the next. */
const NEARBY_KM = 500;
const HOUR_MS = 3_600_000;

/** After this long (milliseconds) anybody can be anywhere. */
export const LONGEST_JOURNEY_MS = ((Math.PI * EARTH_RADIUS_KM) / FASTEST_KMH) * HOUR_MS;

/**
 * Whether nobody could have been at both places in the time between them, wherever around each of the two they were.
 *
 * @param elapsedMs negative where the clocks of two nodes are not quite the same: then it is none
 */
export function isImpossibleTravel(from: Place, to: Place, elapsedMs: number): boolean {
  const leastKm = distanceKm(from, to) - from.accuracyKm - to.accuracyKm;
  return leastKm > Math.max(NEARBY_KM, (FASTEST_KMH * elapsedMs) / HOUR_MS);
}

/** Along a great circle, by the haversine formula. */
function distanceKm(a: Place, b: Place): number {
  const radians = (degrees: number) => (degrees * Math.PI) / 180;
  const [latitudeA, latitudeB] = [radians(a.latitude), radians(b.latitude)];
  const haversine =
    Math.sin((latitudeB - latitudeA) / 2) ** 2 +
    Math.cos(latitudeA) * Math.cos(latitudeB) * Math.sin(radians(b.longitude - a.longitude) / 2) ** 2;
  return 2 * EARTH_RADIUS_KM * Math.asin(Math.sqrt(Math.min(1, haversine)));
}
