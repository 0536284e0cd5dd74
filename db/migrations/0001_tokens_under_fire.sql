CREATE TABLE "client_secrets" (
	"id" uuid PRIMARY KEY NOT NULL,
	"client_id" uuid NOT NULL,
	"secret_hash" text NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"expires_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "clients" (
	"id" uuid PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "secret_keys" ADD COLUMN "activates_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "secret_keys" ADD COLUMN "activated_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "secret_keys" ADD COLUMN "emergency" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "secret_keys" ADD COLUMN "retiring_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "secret_keys" ADD COLUMN "retires_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "signing_keys" ADD COLUMN "activates_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "signing_keys" ADD COLUMN "emergency" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "signing_keys" ADD COLUMN "retires_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "sessions" ADD COLUMN "fingerprint_hash" text;--> statement-breakpoint
ALTER TABLE "client_secrets" ADD CONSTRAINT "client_secrets_client_id_clients_id_fk" FOREIGN KEY ("client_id") REFERENCES "public"."clients"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "client_secrets_client_id_idx" ON "client_secrets" USING btree ("client_id");--> statement-breakpoint
CREATE UNIQUE INDEX "clients_name_key" ON "clients" USING btree ("name");--> statement-breakpoint
CREATE UNIQUE INDEX "secret_keys_one_next_key" ON "secret_keys" USING btree ("purpose") WHERE "secret_keys"."state" = 'next';--> statement-breakpoint
CREATE UNIQUE INDEX "signing_keys_one_next_key" ON "signing_keys" USING btree ("state") WHERE "signing_keys"."state" = 'next';--> statement-breakpoint
CREATE INDEX "sessions_revoked_at_idx" ON "sessions" USING btree ("revoked_at") WHERE "sessions"."revoked_at" IS NOT NULL;--> statement-breakpoint
-- Tells every process of a change that it may have in its cache, whoever made it: "kind:id" on one channel, at commit.
CREATE FUNCTION "tell_change"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_notify('primer_changes',
		TG_ARGV[0] || ':' || COALESCE(to_jsonb(CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END) ->> TG_ARGV[1], ''));
	RETURN NULL;
END $$;
--> statement-breakpoint
-- The same for sessions, of which many may end at once: it looks at nothing but the id.
CREATE FUNCTION "tell_session"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_notify('primer_changes', 'session:' || OLD.id);
	RETURN NULL;
END $$;
--> statement-breakpoint
CREATE TRIGGER "sessions_tell_change" AFTER UPDATE ON "sessions" FOR EACH ROW
	WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at OR OLD.expires_at IS DISTINCT FROM NEW.expires_at
		OR OLD.auth_time IS DISTINCT FROM NEW.auth_time)
	EXECUTE FUNCTION "tell_session"();
--> statement-breakpoint
CREATE TRIGGER "sessions_tell_end" AFTER DELETE ON "sessions" FOR EACH ROW WHEN (OLD.revoked_at IS NULL)
	EXECUTE FUNCTION "tell_session"();
--> statement-breakpoint
CREATE TRIGGER "users_tell_change" AFTER UPDATE ON "users" FOR EACH ROW
	WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.username IS DISTINCT FROM NEW.username
		OR OLD.email IS DISTINCT FROM NEW.email
		OR OLD.password_change_required IS DISTINCT FROM NEW.password_change_required)
	EXECUTE FUNCTION "tell_change"('user', 'id');
--> statement-breakpoint
CREATE TRIGGER "users_tell_end" AFTER DELETE ON "users" FOR EACH ROW EXECUTE FUNCTION "tell_change"('user', 'id');
--> statement-breakpoint
CREATE TRIGGER "user_roles_tell_change" AFTER INSERT OR UPDATE OR DELETE ON "user_roles" FOR EACH ROW
	EXECUTE FUNCTION "tell_change"('user', 'user_id');
--> statement-breakpoint
CREATE TRIGGER "role_permissions_tell_change" AFTER INSERT OR UPDATE OR DELETE ON "role_permissions" FOR EACH ROW
	EXECUTE FUNCTION "tell_change"('role', 'role');
--> statement-breakpoint
CREATE TRIGGER "signing_keys_tell_change" AFTER INSERT OR UPDATE OR DELETE ON "signing_keys" FOR EACH ROW
	EXECUTE FUNCTION "tell_change"('key', 'kid');
--> statement-breakpoint
CREATE TRIGGER "secret_keys_tell_change" AFTER INSERT OR UPDATE OR DELETE ON "secret_keys" FOR EACH ROW
	EXECUTE FUNCTION "tell_change"('key', 'key_id');
--> statement-breakpoint
CREATE TRIGGER "clients_tell_change" AFTER UPDATE OR DELETE ON "clients" FOR EACH ROW
	EXECUTE FUNCTION "tell_change"('client', 'id');
--> statement-breakpoint
CREATE TRIGGER "client_secrets_tell_change" AFTER INSERT OR UPDATE OR DELETE ON "client_secrets" FOR EACH ROW
	EXECUTE FUNCTION "tell_change"('client', 'client_id');
