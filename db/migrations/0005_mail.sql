CREATE TABLE "mail_counters" (
	"recipient" text NOT NULL,
	"template" text NOT NULL,
	"times" timestamp (3) with time zone[] DEFAULT '{}' NOT NULL,
	"last_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "mail_counters_recipient_template_pk" PRIMARY KEY("recipient","template")
);
--> statement-breakpoint
ALTER TABLE "single_use_tokens" ADD COLUMN "subject" text;--> statement-breakpoint
CREATE INDEX "mail_counters_last_at_idx" ON "mail_counters" USING btree ("last_at");--> statement-breakpoint
CREATE UNIQUE INDEX "single_use_tokens_newest_only_key" ON "single_use_tokens" USING btree ("purpose","subject") WHERE "single_use_tokens"."used_at" IS NULL;