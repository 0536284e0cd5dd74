-- Rows of months that had no partition lie in the rest. They are put into partitions of their months once nobody writes to
-- the rest any more, as far as they can before anybody has to wait, and by day or night whenever the log is not in use.
CREATE OR REPLACE FUNCTION "audit_make_partitions"() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET "TimeZone" = 'UTC' SET lock_timeout = '400ms' AS $$
DECLARE
	this_month date := date_trunc('month', now());
	parents text[] := ARRAY['audit_log', 'audit_seals'];
	in_rest date[] := ARRAY(
		SELECT date_trunc('month', time) FROM public.audit_log_rest
		UNION SELECT date_trunc('month', time) FROM public.audit_seals_rest);
	parent text;
	part text;
	month date;
	made integer := 0;
BEGIN
	-- Where this month's rows go to the rest they do so to its end, and none of the next month.
	IF in_rest <> '{}' AND this_month <> ALL (in_rest) THEN
		BEGIN
			FOREACH parent IN ARRAY parents LOOP
				EXECUTE format('LOCK TABLE public.%I IN SHARE MODE', parent || '_rest');
				FOREACH month IN ARRAY in_rest LOOP
					part := parent || to_char(month, '"_y"YYYY"m"MM');
					EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL)', part, parent);
					EXECUTE format('INSERT INTO public.%I SELECT * FROM public.%I WHERE time >= %L AND time < %L', part,
						parent || '_rest', month::timestamptz, (month + interval '1 month')::timestamptz);
				END LOOP;
			END LOOP;
			LOCK TABLE public.audit_log, public.audit_seals IN ACCESS EXCLUSIVE MODE;
			FOREACH parent IN ARRAY parents LOOP
				EXECUTE format('DROP TABLE public.%I', parent || '_rest');
				FOREACH month IN ARRAY in_rest LOOP
					PERFORM public.audit_attach_partition(parent, month);
					made := made + 1;
				END LOOP;
				EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I DEFAULT', parent || '_rest', parent);
				EXECUTE format('CREATE TRIGGER audit_refuse_truncate BEFORE TRUNCATE ON public.%I EXECUTE FUNCTION public.audit_refuse()',
					parent || '_rest');
			END LOOP;
			in_rest := '{}';
		EXCEPTION WHEN lock_not_available THEN
			made := 0; -- the log is being read, as by a backup: the next time
		END;
	END IF;
	FOREACH parent IN ARRAY parents LOOP
		FOR month IN SELECT this_month + make_interval(months => ahead) FROM generate_series(0, 3) AS ahead LOOP
			part := parent || to_char(month, '"_y"YYYY"m"MM');
			CONTINUE WHEN month = ANY (in_rest) OR to_regclass('public.' || part) IS NOT NULL;
			-- To attach a table keeps nobody waiting who writes; to make one as a partition would.
			EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL)', part, parent);
			PERFORM public.audit_attach_partition(parent, month);
			made := made + 1;
		END LOOP;
	END LOOP;
	RETURN made;
END $$;
--> statement-breakpoint
CREATE OR REPLACE FUNCTION "audit_attach_partition"(parent text, month date) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET "TimeZone" = 'UTC' AS $$
DECLARE
	part text := parent || to_char(month, '"_y"YYYY"m"MM');
BEGIN
	EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', parent, part,
		month::timestamptz, (month + interval '1 month')::timestamptz);
	EXECUTE format('CREATE TRIGGER audit_refuse_truncate BEFORE TRUNCATE ON public.%I EXECUTE FUNCTION public.audit_refuse()', part);
END $$;
--> statement-breakpoint
REVOKE EXECUTE ON FUNCTION audit_attach_partition(text, date) FROM PUBLIC;
