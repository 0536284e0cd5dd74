import { defineConfig } from "drizzle-kit";

/** For `bun run db:generate`, which writes the next migration from the difference between the schema and the last one. */
export default defineConfig({ dialect: "postgresql", schema: "./db/schema/index.ts", out: "./db/migrations" });
