CREATE TABLE "idempotency_keys" (
	"caller_id" text NOT NULL,
	"key_hash" text NOT NULL,
	"sealed" text,
	"subject_id" text,
	"expires_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "idempotency_keys_caller_id_key_hash_pk" PRIMARY KEY("caller_id","key_hash")
);
--> statement-breakpoint
CREATE INDEX "idempotency_keys_subject_id_idx" ON "idempotency_keys" USING btree ("subject_id");--> statement-breakpoint
CREATE INDEX "idempotency_keys_expires_at_idx" ON "idempotency_keys" USING btree ("expires_at");