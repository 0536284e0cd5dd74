CREATE TABLE "resource_grants" (
	"user_id" uuid NOT NULL,
	"role" text NOT NULL,
	"resource" text NOT NULL,
	"granted_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "resource_grants_user_id_role_resource_pk" PRIMARY KEY("user_id","role","resource")
);
--> statement-breakpoint
CREATE TABLE "role_inclusions" (
	"role" text NOT NULL,
	"includes" text NOT NULL,
	CONSTRAINT "role_inclusions_role_includes_pk" PRIMARY KEY("role","includes")
);
--> statement-breakpoint
ALTER TABLE "users" ADD COLUMN "erased_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "resource_grants" ADD CONSTRAINT "resource_grants_user_id_users_id_fk" FOREIGN KEY ("user_id") REFERENCES "public"."users"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "resource_grants" ADD CONSTRAINT "resource_grants_role_roles_name_fk" FOREIGN KEY ("role") REFERENCES "public"."roles"("name") ON DELETE restrict ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "role_inclusions" ADD CONSTRAINT "role_inclusions_role_roles_name_fk" FOREIGN KEY ("role") REFERENCES "public"."roles"("name") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "role_inclusions" ADD CONSTRAINT "role_inclusions_includes_roles_name_fk" FOREIGN KEY ("includes") REFERENCES "public"."roles"("name") ON DELETE restrict ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "resource_grants_role_idx" ON "resource_grants" USING btree ("role");--> statement-breakpoint
CREATE INDEX "role_inclusions_includes_idx" ON "role_inclusions" USING btree ("includes");--> statement-breakpoint
CREATE TRIGGER "role_inclusions_tell_change" AFTER INSERT OR UPDATE OR DELETE ON "role_inclusions" FOR EACH ROW
	EXECUTE FUNCTION "tell_change"('role', 'role');
--> statement-breakpoint
CREATE TRIGGER "resource_grants_tell_change" AFTER INSERT OR UPDATE OR DELETE ON "resource_grants" FOR EACH ROW
	EXECUTE FUNCTION "tell_change"('user', 'user_id');
