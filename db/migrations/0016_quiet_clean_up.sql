-- Whoever deletes sessions that have been over for days says so: nobody remembers them, so nobody has to be told, and
-- millions of them go without every process reading about each.
CREATE OR REPLACE TRIGGER "sessions_tell_end" AFTER DELETE ON "sessions" FOR EACH ROW
	WHEN (OLD.revoked_at IS NULL AND current_setting('primer.long_over', true) IS DISTINCT FROM 'on')
	EXECUTE FUNCTION "tell_session"();
