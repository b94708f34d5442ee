-- Reports dropped tables and columns, and replaces the triggers of tables that lost a column or their key together with another
-- object. It runs as the role that executes the statement, with its own search path.
DECLARE
    began   timestamptz := clock_timestamp();
    dropped record;
    changed oid[];
BEGIN
    FOR dropped IN
        SELECT d.* FROM pg_event_trigger_dropped_objects() d,
            LATERAL (SELECT d.address_names[1] AS nspname) n, LATERAL (SELECT d.address_names[2] AS relname) c,
            ({options}) o
        WHERE d.object_type IN ('table', 'foreign table', 'table column', 'foreign table column') AND NOT d.is_temporary
          AND d.schema_name <> 'notifyman'
          AND (o.replicated OR current_setting('session_replication_role') <> 'replica') AND
{named}
    LOOP
        BEGIN
            {report}row_to_json(r){end} (SELECT
                'dropped' AS event, session_user AS session_user,
                dropped.classid::bigint, dropped.objid::bigint, dropped.objsubid,
                tg_tag AS command_tag, dropped.object_type, dropped.address_names[2] AS object_name,
                dropped.object_identity, dropped.schema_name, dropped.original, dropped.normal,
                NULL AS in_extension, dropped.is_temporary) r;
        EXCEPTION WHEN others THEN
            RAISE WARNING 'notifyman: % was dropped, and that could not be reported: %', dropped.object_identity, SQLERRM;
        END;
    END LOOP;
    -- The table of a dropped index is unknown, so all tables that lost the index of their replica identity are examined.
    changed := ARRAY(
        SELECT d.objid FROM pg_event_trigger_dropped_objects() d JOIN pg_class c ON c.oid = d.objid
        WHERE d.classid = 'pg_class'::regclass AND d.objsubid <> 0 AND NOT d.is_temporary
        UNION
        SELECT c.oid FROM pg_class c
        WHERE c.relreplident = 'i' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisreplident)
          AND EXISTS (SELECT FROM pg_event_trigger_dropped_objects() WHERE object_type = 'index'));
    IF changed = ARRAY[]::oid[] THEN
        RETURN;
    END IF;
{cover}
EXCEPTION WHEN others THEN
    RAISE WARNING 'notifyman: dropped objects could not be reported: %', SQLERRM
        USING HINT = 'Run `notifyman build` with the same options.';
END
