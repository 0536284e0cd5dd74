import type { Deps } from "../../deps.ts";
import { createRevocationList, type RevocationList } from "./revocation-list.ts";
import { createRevocationStreams, type RevocationStreams } from "./revocation-streams.ts";

export { MAX_STREAMS, MAX_STREAMS_OF_ONE } from "./revocation-streams.ts";

/** What services that verify access tokens by themselves ask: which sessions ended before their tokens did. */
export type Revocations = Pick<RevocationList, "snapshot" | "changed"> & RevocationStreams;

/** @param deps what counts now: settings are replaced while the process runs */
export function createRevocations(deps: () => Deps): Revocations {
  const list = createRevocationList(deps);
  return { snapshot: list.snapshot, changed: list.changed, ...createRevocationStreams(deps, list) };
}
