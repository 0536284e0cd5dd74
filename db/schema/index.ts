export * from "./audit.ts";
export * from "./clients.ts";
export * from "./installation.ts";
export * from "./keys.ts";
export * from "./logins.ts";
export * from "./processes.ts";
export * from "./sessions.ts";
export * from "./users.ts";
