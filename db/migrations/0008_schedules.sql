CREATE TABLE "schedule_runs" (
	"name" text PRIMARY KEY NOT NULL,
	"occurrence" timestamp (3) with time zone NOT NULL,
	"attempt" integer DEFAULT 0 NOT NULL,
	"state" text NOT NULL,
	"started_at" timestamp (3) with time zone,
	"ended_at" timestamp (3) with time zone,
	"claimable_at" timestamp (3) with time zone,
	"error" text,
	"details" jsonb,
	CONSTRAINT "schedule_runs_state_known" CHECK ("schedule_runs"."state" IN ('waiting', 'running', 'retry', 'done', 'failed'))
);
--> statement-breakpoint
CREATE INDEX "users_pending_idx" ON "users" USING btree ("created_at","id") WHERE "users"."status" = 'pending';--> statement-breakpoint
CREATE INDEX "users_deactivated_idx" ON "users" USING btree ("deactivated_at","id") WHERE "users"."deactivated_at" IS NOT NULL;--> statement-breakpoint
CREATE INDEX "users_erased_at_idx" ON "users" USING btree ("erased_at") WHERE "users"."erased_at" IS NOT NULL;