CREATE TABLE "account_baselines" (
	"user_id" uuid PRIMARY KEY NOT NULL,
	"last_hour" timestamp (3) with time zone NOT NULL,
	"baseline" jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "baseline_cursor" (
	"id" integer PRIMARY KEY NOT NULL,
	"time" timestamp (3) with time zone NOT NULL,
	"login_id" uuid NOT NULL,
	CONSTRAINT "baseline_cursor_one_row" CHECK ("baseline_cursor"."id" = 1)
);
--> statement-breakpoint
CREATE TABLE "network_baselines" (
	"network" text PRIMARY KEY NOT NULL,
	"last_hour" timestamp (3) with time zone NOT NULL,
	"baseline" jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "sign_in_anomalies" (
	"id" uuid PRIMARY KEY NOT NULL,
	"user_id" uuid,
	"network" text,
	"hour" timestamp (3) with time zone NOT NULL,
	"score" integer NOT NULL,
	"signals" text[] NOT NULL,
	"good" integer NOT NULL,
	"failed" integer NOT NULL,
	CONSTRAINT "sign_in_anomalies_of_one" CHECK (num_nonnulls("sign_in_anomalies"."user_id", "sign_in_anomalies"."network") = 1)
);
--> statement-breakpoint
CREATE TABLE "threat_lists" (
	"source" text PRIMARY KEY NOT NULL,
	"taken_at" timestamp (3) with time zone,
	"sha256" text,
	"count" integer,
	"networks" text,
	"attempted_at" timestamp (3) with time zone NOT NULL,
	"failures" integer DEFAULT 0 NOT NULL,
	"problem" text,
	"due_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "login_records" ADD COLUMN "risk_score" integer;--> statement-breakpoint
ALTER TABLE "login_records" ADD COLUMN "risk_signals" text[];--> statement-breakpoint
ALTER TABLE "account_baselines" ADD CONSTRAINT "account_baselines_user_id_users_id_fk" FOREIGN KEY ("user_id") REFERENCES "public"."users"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "sign_in_anomalies" ADD CONSTRAINT "sign_in_anomalies_user_id_users_id_fk" FOREIGN KEY ("user_id") REFERENCES "public"."users"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "account_baselines_last_hour_idx" ON "account_baselines" USING btree ("last_hour");--> statement-breakpoint
CREATE INDEX "network_baselines_last_hour_idx" ON "network_baselines" USING btree ("last_hour");--> statement-breakpoint
CREATE UNIQUE INDEX "sign_in_anomalies_user_id_hour_key" ON "sign_in_anomalies" USING btree ("user_id","hour");--> statement-breakpoint
CREATE UNIQUE INDEX "sign_in_anomalies_network_hour_key" ON "sign_in_anomalies" USING btree ("network","hour");--> statement-breakpoint
CREATE INDEX "sign_in_anomalies_hour_idx" ON "sign_in_anomalies" USING btree ("hour");