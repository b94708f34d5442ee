-- Reports what became of tables' definitions, covers tables as they are created, and gives them other triggers as their
-- columns change. A statement that changes a parent changes its children.
--
-- It runs as the role that runs the statement, under a search path of its own. Whatever fails here, would have to wait,
-- or would take too long is a warning, and the statement goes on: `notifyman build` does what is left.
DECLARE
    began    timestamptz := clock_timestamp();
    command  record;
    changed  oid[];
BEGIN
    changed := ARRAY(
        SELECT d.objid FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.oid = d.objid
        WHERE d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
        UNION
        -- Tables of a type, whose columns are the type's.
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
            RAISE WARNING 'notifyman: a change of % could not be reported: %', command.object_identity, SQLERRM;
        END;
    END LOOP;
{cover}
EXCEPTION WHEN others THEN
    RAISE WARNING 'notifyman: tables are not covered as they should be: %', SQLERRM USING HINT = 'Run `notifyman build` with the same options.';
END
