-- Tells also of a new password, of an address by which somebody is found, and of a restore.
CREATE FUNCTION "tell_password"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_notify('primer_changes', 'user:' || COALESCE(NEW.user_id, OLD.user_id));
	RETURN NULL;
END $$;
--> statement-breakpoint
-- Not of another hash of the same password, which leaves the time as it is.
CREATE TRIGGER "credentials_tell_change" AFTER DELETE OR UPDATE OF "created_at", "updated_at" ON "credentials"
	FOR EACH ROW EXECUTE FUNCTION "tell_password"();
--> statement-breakpoint
-- Nor of one that came with its account, of which an import makes a million.
CREATE TRIGGER "credentials_tell_first" AFTER INSERT ON "credentials" FOR EACH ROW
	WHEN (NEW.updated_at > NEW.created_at) EXECUTE FUNCTION "tell_password"();
--> statement-breakpoint
CREATE OR REPLACE TRIGGER "users_tell_change" AFTER UPDATE ON "users" FOR EACH ROW
	WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.username IS DISTINCT FROM NEW.username
		OR OLD.email IS DISTINCT FROM NEW.email OR OLD.email_key IS DISTINCT FROM NEW.email_key
		OR OLD.password_change_required IS DISTINCT FROM NEW.password_change_required)
	EXECUTE FUNCTION "tell_change"('user', 'id');
--> statement-breakpoint
CREATE TRIGGER "installation_tell_change" AFTER UPDATE ON "installation" FOR EACH ROW
	WHEN (OLD.not_before IS DISTINCT FROM NEW.not_before) EXECUTE FUNCTION "tell_change"('installation', 'only');
