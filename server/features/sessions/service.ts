export { createSessionStates, type SessionStates } from "./session-states.ts";
