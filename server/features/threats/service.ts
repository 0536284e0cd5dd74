export { idOf, keepThreats, nameOf, type Threats } from "./known-threats.ts";
export { type ListCondition, lookAtLists, OLD_THREATS_DAYS, oldestList } from "./list-conditions.ts";
export { type RefreshOptions, refreshLists } from "./refresh-lists.ts";
export { assertNotListed, type GuardedAction } from "./refuse-listed.ts";
