-- By its text_pattern_ops an index finds what begins with a text as well, whatever the language of the database.
CREATE UNIQUE INDEX "users_username_pattern_key" ON "users" USING btree ("username" text_pattern_ops);--> statement-breakpoint
CREATE UNIQUE INDEX "users_email_pattern_key" ON "users" USING btree ("email_key" text_pattern_ops);--> statement-breakpoint
-- Not everybody may create an extension, and not every server has it: without it users are found by how they begin.
DO $$
BEGIN
	CREATE EXTENSION IF NOT EXISTS pg_trgm;
EXCEPTION WHEN OTHERS THEN
	RAISE NOTICE 'pg_trgm is not to be had: %', SQLERRM;
END $$;--> statement-breakpoint
-- Whoever made it may have made it in a schema that is not looked in.
DO $$
DECLARE
	home text := (SELECT nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
		WHERE extname = 'pg_trgm' AND has_schema_privilege(n.oid, 'USAGE'));
BEGIN
	IF home IS NOT NULL THEN
		EXECUTE format('CREATE INDEX "users_search_idx" ON "users" USING gin
			("username" %1$I.gin_trgm_ops,"email_key" %1$I.gin_trgm_ops) WITH (gin_pending_list_limit=256)', home);
	END IF;
END $$;--> statement-breakpoint
CREATE INDEX "users_newest_idx" ON "users" USING btree ("created_at","id");--> statement-breakpoint
DROP INDEX "users_created_at_idx";--> statement-breakpoint
DROP INDEX "users_username_key";--> statement-breakpoint
DROP INDEX "users_email_key";--> statement-breakpoint
ALTER INDEX "users_newest_idx" RENAME TO "users_created_at_idx";--> statement-breakpoint
ALTER INDEX "users_username_pattern_key" RENAME TO "users_username_key";--> statement-breakpoint
ALTER INDEX "users_email_pattern_key" RENAME TO "users_email_key";
