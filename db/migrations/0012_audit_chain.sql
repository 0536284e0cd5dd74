ALTER TABLE "audit_log" RENAME TO "audit_log_before";--> statement-breakpoint
ALTER TABLE "audit_log_before" DROP CONSTRAINT "audit_log_pkey", DROP CONSTRAINT "audit_log_outcome_known";--> statement-breakpoint
DROP INDEX "audit_log_time_idx", "audit_log_actor_idx", "audit_log_subject_idx", "audit_log_action_idx";--> statement-breakpoint
CREATE SEQUENCE "public"."audit_log_number_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1;--> statement-breakpoint
CREATE TABLE "audit_log" (
	"id" uuid NOT NULL,
	"time" timestamp (3) with time zone NOT NULL,
	"action" text NOT NULL,
	"outcome" text NOT NULL,
	"actor_kind" text NOT NULL,
	"actor_id" text,
	"subject_kind" text,
	"subject_id" text,
	"ip" text,
	"user_agent" text,
	"request_id" text,
	"details" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"number" bigint DEFAULT nextval('audit_log_number_seq'::regclass) NOT NULL,
	"caller_of" text,
	"caller_salt" uuid DEFAULT gen_random_uuid(),
	CONSTRAINT "audit_log_time_id_pk" PRIMARY KEY("time","id"),
	CONSTRAINT "audit_log_outcome_known" CHECK ("outcome" IN ('success', 'failure'))
) PARTITION BY RANGE ("time");
--> statement-breakpoint
ALTER SEQUENCE "audit_log_number_seq" OWNED BY "audit_log"."number";--> statement-breakpoint
CREATE TABLE "audit_seals" (
	"time" timestamp (3) with time zone NOT NULL,
	"event_id" uuid NOT NULL,
	"seq" bigint NOT NULL,
	"sealed_through" bigint NOT NULL,
	"caller_digest" "bytea",
	"hash" "bytea" NOT NULL,
	CONSTRAINT "audit_seals_time_event_id_pk" PRIMARY KEY("time","event_id")
) PARTITION BY RANGE ("time");
--> statement-breakpoint
CREATE TABLE "audit_anchors" (
	"first_seq" bigint PRIMARY KEY NOT NULL,
	"last_seq" bigint NOT NULL,
	"month" date NOT NULL,
	"rows" bigint NOT NULL,
	"last_hash" "bytea" NOT NULL,
	"sealed_through" bigint NOT NULL,
	"dropped_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE INDEX "audit_log_number_idx" ON "audit_log" USING btree ("number");--> statement-breakpoint
CREATE INDEX "audit_log_actor_idx" ON "audit_log" USING btree ("actor_id","time","id");--> statement-breakpoint
CREATE INDEX "audit_log_actor_kind_idx" ON "audit_log" USING btree ("actor_kind","time","id") WHERE "audit_log"."actor_id" IS NULL;--> statement-breakpoint
CREATE INDEX "audit_log_subject_idx" ON "audit_log" USING btree ("subject_id","time","id");--> statement-breakpoint
CREATE INDEX "audit_log_action_idx" ON "audit_log" USING btree ("action","time","id");--> statement-breakpoint
CREATE INDEX "audit_log_caller_of_idx" ON "audit_log" USING btree ("caller_of") WHERE "audit_log"."caller_salt" IS NOT NULL;--> statement-breakpoint
CREATE INDEX "audit_seals_seq_idx" ON "audit_seals" USING btree ("seq");--> statement-breakpoint
CREATE OR REPLACE FUNCTION "audit_refuse"() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	has_rows boolean := true;
BEGIN
	IF TG_OP = 'TRUNCATE' THEN
		EXECUTE format('SELECT EXISTS (SELECT FROM %I.%I)', TG_TABLE_SCHEMA, TG_TABLE_NAME) INTO has_rows;
	END IF;
	IF has_rows THEN
		RAISE EXCEPTION 'The audit log is added to, and never changed' USING ERRCODE = 'insufficient_privilege';
	END IF;
	RETURN NULL;
END $$;
--> statement-breakpoint
CREATE OR REPLACE FUNCTION "audit_keep"() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- The one change there is: of somebody of whom the log itself says that they were erased, address and agent go, with
	-- what their digest was salted with.
	IF NEW.ip IS NULL AND NEW.user_agent IS NULL AND NEW.caller_salt IS NULL
		AND to_jsonb(NEW) - '{ip,user_agent,caller_salt}'::text[] = to_jsonb(OLD) - '{ip,user_agent,caller_salt}'::text[]
		AND EXISTS (SELECT FROM public.audit_log
			WHERE subject_id = OLD.caller_of AND subject_kind = 'user' AND action = 'user.erased' AND outcome = 'success')
	THEN
		RETURN NEW;
	END IF;
	RAISE EXCEPTION 'The audit log is added to, and never changed' USING ERRCODE = 'insufficient_privilege';
END $$;
--> statement-breakpoint
CREATE OR REPLACE FUNCTION "audit_number"() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- Whoever owns the table puts rows back.
	IF pg_has_role((SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
		RETURN NEW;
	END IF;
	-- Whoever chose numbers could put rows where nobody looks for them; one without a salt looks as of somebody erased.
	IF NEW.caller_salt IS NULL OR NEW.number <> currval('public.audit_log_number_seq') THEN
		RAISE EXCEPTION 'The audit log numbers its rows itself' USING ERRCODE = 'insufficient_privilege';
	END IF;
	RETURN NEW;
END $$;
--> statement-breakpoint
CREATE OR REPLACE FUNCTION "audit_forget"(erased text, most integer) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	one record;
	forgotten integer := 0;
BEGIN
	FOR one IN SELECT time, id FROM public.audit_log WHERE caller_of = erased AND caller_salt IS NOT NULL LIMIT most LOOP
		UPDATE public.audit_log SET ip = NULL, user_agent = NULL, caller_salt = NULL WHERE time = one.time AND id = one.id;
		forgotten := forgotten + 1;
	END LOOP;
	RETURN forgotten;
END $$;
--> statement-breakpoint
CREATE OR REPLACE FUNCTION "audit_make_partitions"() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET "TimeZone" = 'UTC' SET lock_timeout = '400ms' AS $$
DECLARE
	strays boolean := EXISTS (SELECT FROM public.audit_log_rest) OR EXISTS (SELECT FROM public.audit_seals_rest);
	months date[] := ARRAY(
		SELECT date_trunc('month', now() + make_interval(months => ahead)) FROM generate_series(0, 3) AS ahead
		UNION SELECT date_trunc('month', time) FROM public.audit_log_rest
		UNION SELECT date_trunc('month', time) FROM public.audit_seals_rest);
	parent text;
	month date;
	part text;
	made integer := 0;
BEGIN
	-- Rows that no partition was there for move to that of their month, through a new and empty rest.
	IF strays THEN LOCK TABLE public.audit_log, public.audit_seals IN ACCESS EXCLUSIVE MODE; END IF;
	FOREACH parent IN ARRAY ARRAY['audit_log', 'audit_seals'] LOOP
		IF strays THEN
			EXECUTE format('ALTER TABLE public.%I DETACH PARTITION public.%I', parent, parent || '_rest');
			EXECUTE format('ALTER TABLE public.%I RENAME TO %I', parent || '_rest', parent || '_strays');
		END IF;
		FOREACH month IN ARRAY months LOOP
			part := parent || to_char(month, '"_y"YYYY"m"MM');
			CONTINUE WHEN to_regclass('public.' || part) IS NOT NULL;
			-- To attach a table keeps nobody waiting who writes; to make one as a partition would.
			EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL)', part, parent);
			EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', parent, part,
				month::timestamptz, (month + interval '1 month')::timestamptz);
			EXECUTE format('CREATE TRIGGER audit_refuse_truncate BEFORE TRUNCATE ON public.%I EXECUTE FUNCTION public.audit_refuse()', part);
			made := made + 1;
		END LOOP;
		IF strays THEN
			EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I DEFAULT', parent || '_rest', parent);
			EXECUTE format('CREATE TRIGGER audit_refuse_truncate BEFORE TRUNCATE ON public.%I EXECUTE FUNCTION public.audit_refuse()',
				parent || '_rest');
			EXECUTE format('INSERT INTO public.%I SELECT * FROM public.%I', parent, parent || '_strays');
			EXECUTE format('DROP TABLE public.%I', parent || '_strays');
		END IF;
	END LOOP;
	RETURN made;
END $$;
--> statement-breakpoint
CREATE TRIGGER "audit_number" BEFORE INSERT ON "audit_log" FOR EACH ROW EXECUTE FUNCTION "audit_number"();--> statement-breakpoint
CREATE TRIGGER "audit_keep" BEFORE UPDATE ON "audit_log" FOR EACH ROW EXECUTE FUNCTION "audit_keep"();--> statement-breakpoint
CREATE TRIGGER "audit_refuse" BEFORE DELETE ON "audit_log" FOR EACH ROW EXECUTE FUNCTION "audit_refuse"();--> statement-breakpoint
CREATE TRIGGER "audit_refuse_truncate" BEFORE TRUNCATE ON "audit_log" EXECUTE FUNCTION "audit_refuse"();--> statement-breakpoint
CREATE TRIGGER "audit_refuse" BEFORE UPDATE OR DELETE ON "audit_seals" FOR EACH ROW EXECUTE FUNCTION "audit_refuse"();--> statement-breakpoint
CREATE TRIGGER "audit_refuse_truncate" BEFORE TRUNCATE ON "audit_seals" EXECUTE FUNCTION "audit_refuse"();--> statement-breakpoint
CREATE TRIGGER "audit_refuse" BEFORE UPDATE OR DELETE ON "audit_anchors" FOR EACH ROW EXECUTE FUNCTION "audit_refuse"();--> statement-breakpoint
CREATE TRIGGER "audit_refuse_truncate" BEFORE TRUNCATE ON "audit_anchors" EXECUTE FUNCTION "audit_refuse"();--> statement-breakpoint
CREATE TABLE "audit_log_rest" PARTITION OF "audit_log" DEFAULT;--> statement-breakpoint
CREATE TABLE "audit_seals_rest" PARTITION OF "audit_seals" DEFAULT;--> statement-breakpoint
CREATE TRIGGER "audit_refuse_truncate" BEFORE TRUNCATE ON "audit_log_rest" EXECUTE FUNCTION "audit_refuse"();--> statement-breakpoint
CREATE TRIGGER "audit_refuse_truncate" BEFORE TRUNCATE ON "audit_seals_rest" EXECUTE FUNCTION "audit_refuse"();--> statement-breakpoint
INSERT INTO "audit_log" (id, time, action, outcome, actor_kind, actor_id, subject_kind, subject_id, ip, user_agent, request_id, details, caller_of)
	SELECT id, time, action, outcome, actor_kind, actor_id, subject_kind, subject_id, ip, user_agent, request_id, details - 'username',
		CASE WHEN actor_kind = 'user' THEN actor_id WHEN subject_kind = 'user' THEN subject_id
			WHEN actor_kind = 'anonymous' THEN details ->> 'user_id' END
	FROM "audit_log_before" ORDER BY id;--> statement-breakpoint
DROP TABLE "audit_log_before";--> statement-breakpoint
REVOKE EXECUTE ON FUNCTION audit_forget(text, integer), audit_make_partitions() FROM PUBLIC;--> statement-breakpoint
SELECT audit_make_partitions();
