-- Tells of a change to a table's definition.
CREATE OR REPLACE FUNCTION notifyman.tell_schema_change(change json) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number  bigint := nextval('notifyman.number');
    payload text := concat('{"number":', number, ',', substr(change::text, 2));
    o       notifyman.installation;
BEGIN
    SELECT * INTO o FROM notifyman.installation;
    IF current_setting('session_replication_role') = 'replica' AND NOT o.replicated THEN
        RETURN;
    ELSIF o.delivery = 'table' THEN
        INSERT INTO notifyman.outbox (number, payload) VALUES (number, payload);
    ELSE
        PERFORM pg_notify('notifyman', payload);
    END IF;
END $$;

-- A table, its children, and the tables with columns of any of their types: those whose functions must follow when the
-- columns of the one change. All of them depend on it, a relation's own type apart.
CREATE OR REPLACE FUNCTION notifyman.family(relation oid) RETURNS SETOF regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN QUERY
    WITH RECURSIVE family (class, member) AS (
        SELECT 'pg_class'::regclass::oid, relation
        UNION
        SELECT next.class, next.member
        FROM family f, LATERAL (
            SELECT d.classid AS class, d.objid AS member FROM pg_depend d
            WHERE d.refclassid = f.class AND d.refobjid = f.member
              AND d.classid IN ('pg_class'::regclass, 'pg_type'::regclass)
            UNION ALL
            SELECT 'pg_type'::regclass, c.reltype FROM pg_class c
            WHERE f.class = 'pg_class'::regclass AND c.oid = f.member AND c.reltype <> 0
        ) next
    )
    SELECT c.oid::regclass FROM family f JOIN pg_class c ON c.oid = f.member
    WHERE f.class = 'pg_class'::regclass AND c.relkind IN ('r', 'p', 'f');
END $$;

-- Covers tables as they are created, and writes their functions anew as their columns change. A statement that changes
-- a parent changes its children, and one that changes a composite type the tables that have it.
--
-- Whatever fails here, or would have to wait, is a warning, and the user's statement goes on: `notifyman build` mends
-- it.
CREATE OR REPLACE FUNCTION notifyman.on_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    command  record;
    relation regclass;
BEGIN
    IF current_setting('notifyman.is_covering', true) = 'true' THEN
        RETURN;
    END IF;
    FOR command IN
        SELECT d.classid, d.objid, d.objsubid, d.command_tag, d.object_type, d.object_identity, d.schema_name,
            d.in_extension, c.relname
        FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.oid = d.objid
        WHERE d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p', 'f', 'c') AND c.relpersistence <> 't'
    LOOP
        BEGIN
            IF notifyman.is_selected(command.objid) THEN
                PERFORM notifyman.tell_schema_change(row_to_json(told)) FROM (SELECT
                    'altered' AS event, session_user AS session_user,
                    command.classid::bigint, command.objid::bigint, command.objsubid,
                    command.command_tag, command.object_type, command.relname AS object_name, command.object_identity,
                    command.schema_name, NULL AS original, NULL AS normal, command.in_extension,
                    false AS is_temporary) told;
            END IF;
            FOR relation IN
                SELECT f FROM notifyman.family(command.objid) f
            LOOP
                PERFORM notifyman.cover(relation, false);
            END LOOP;
        EXCEPTION WHEN others THEN
            RAISE WARNING 'notifyman: % is not covered as it should be: %', command.object_identity, SQLERRM
                USING HINT = 'Run `notifyman build`.';
        END;
    END LOOP;
END $$;

-- Tells of tables and columns that are dropped, by whatever statement.
CREATE OR REPLACE FUNCTION notifyman.on_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    dropped   record;
    is_unused boolean := false;
BEGIN
    FOR dropped IN
        SELECT * FROM pg_event_trigger_dropped_objects()
        WHERE object_type IN ('table', 'foreign table', 'table column', 'foreign table column') AND NOT is_temporary
    LOOP
        BEGIN
            IF notifyman.is_name_selected(dropped.address_names[1], dropped.address_names[2]) THEN
                PERFORM notifyman.tell_schema_change(row_to_json(told)) FROM (SELECT
                    'dropped' AS event, session_user AS session_user,
                    dropped.classid::bigint, dropped.objid::bigint, dropped.objsubid,
                    tg_tag AS command_tag, dropped.object_type, dropped.address_names[2] AS object_name,
                    dropped.object_identity, dropped.schema_name, dropped.original, dropped.normal,
                    NULL AS in_extension, dropped.is_temporary) told;
            END IF;
            -- A column can go without a word of its table, as with its type.
            IF dropped.objsubid <> 0 AND EXISTS (SELECT FROM pg_class WHERE oid = dropped.objid) THEN
                PERFORM notifyman.cover(dropped.objid, false);
            ELSE
                is_unused := true;
            END IF;
        EXCEPTION WHEN others THEN
            RAISE WARNING 'notifyman: % is gone, and that could not be told: %', dropped.object_identity, SQLERRM;
        END;
    END LOOP;
    -- Once for all that went.
    IF is_unused THEN
        PERFORM notifyman.drop_unused_functions();
    END IF;
EXCEPTION WHEN others THEN
    RAISE WARNING 'notifyman: what belonged to tables that are gone is left: %', SQLERRM
        USING HINT = 'Run `notifyman build`.';
END $$;
