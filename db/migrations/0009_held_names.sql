CREATE TABLE "held_names" (
	"username" text PRIMARY KEY NOT NULL,
	"holder" text NOT NULL,
	"held_until" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "users" ADD COLUMN "reclaimable_until" timestamp (3) with time zone;--> statement-breakpoint
CREATE INDEX "held_names_held_until_idx" ON "held_names" USING btree ("held_until");