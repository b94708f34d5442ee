-- Reports changes to tables' definitions, covers new tables, and replaces the triggers of tables whose columns have changed. A
-- statement that changes a parent changes its children as well.
--
-- It runs as the role that executes the statement, with its own search path. An error, a wait for a lock, or a long duration
-- causes a warning, and the statement succeeds: `notifyman build` covers the rest.
DECLARE
    began    timestamptz := clock_timestamp();
    command  record;
    changed  oid[];
BEGIN
    changed := ARRAY(
        SELECT d.objid FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.oid = d.objid
        WHERE d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
        UNION
        -- Typed tables have the columns of their type.
        SELECT c.oid FROM pg_event_trigger_ddl_commands() d JOIN pg_class y ON y.oid = d.objid
            JOIN pg_class c ON c.reloftype = y.reltype
        WHERE d.classid = 'pg_class'::regclass AND y.relkind = 'c');
    IF changed = ARRAY[]::oid[] THEN
        RETURN;
    END IF;
    FOR command IN
        SELECT d.classid, d.objid, d.objsubid, d.command_tag, d.object_type, d.object_identity, d.schema_name,
            d.in_extension, c.relname
        FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.oid = d.objid
            JOIN pg_namespace n ON n.oid = c.relnamespace, ({options}) o
        WHERE d.classid = 'pg_class'::regclass AND (o.replicated OR current_setting('session_replication_role') <> 'replica')
          AND {coverable} AND
{named}
    LOOP
        BEGIN
            {report}row_to_json(r){end} (SELECT
                'altered' AS event, session_user AS session_user,
                command.classid::bigint, command.objid::bigint, command.objsubid,
                command.command_tag, command.object_type, command.relname AS object_name, command.object_identity,
                command.schema_name, NULL AS original, NULL AS normal, command.in_extension, false AS is_temporary) r;
        EXCEPTION WHEN others THEN
            RAISE WARNING 'notifyman: the change of % could not be reported: %', command.object_identity, SQLERRM;
        END;
    END LOOP;
{cover}
EXCEPTION WHEN others THEN
    RAISE WARNING 'notifyman: tables could not be covered: %', SQLERRM USING HINT = 'Run `notifyman build` with the same options.';
END
