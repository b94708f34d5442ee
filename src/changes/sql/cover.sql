-- Whether a table of this name is asked for.
CREATE OR REPLACE FUNCTION notifyman.is_name_selected(schema_name text, table_name text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN (
    SELECT EXISTS (
        SELECT FROM notifyman.installation o, (SELECT schema_name AS nspname) n, (SELECT table_name AS relname) c WHERE
{named})
); END $$;

-- Whether a table is asked for, and is one that can be covered.
CREATE OR REPLACE FUNCTION notifyman.is_selected(relation oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN (
    SELECT EXISTS (
        SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = relation AND notifyman.is_name_selected(n.nspname, c.relname) AND
{coverable})
); END $$;

-- The triggers that a table is to have. Their names sort before those of most others, and triggers fire by name: so a
-- row that another trigger then writes once more is told in the order in which it was written.
--
-- Partitions have triggers of their own, and the root of their tree none for rows: nothing is cloned, so attaching and
-- detaching find no trigger in the way, and change none. In the keys shape a statement fires those of the table that it
-- names, so the root has them, too.
CREATE OR REPLACE FUNCTION notifyman.wanted_triggers(relation oid)
RETURNS TABLE (name name, type int2, clause text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN QUERY
    SELECT w.name::name, w.type::int2, w.clause
    FROM pg_class c, (VALUES
        ('0_notifyman', 29, 'rf', false, 'AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW'),
        ('0_notifyman_insert', 4, 'rp', true,
            'AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT'),
        ('0_notifyman_update', 16, 'rp', true,
            'AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT'),
        ('0_notifyman_delete', 8, 'rp', true,
            'AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT'),
        ('0_notifyman_truncate', 32, 'r', NULL, 'AFTER TRUNCATE ON %s FOR EACH STATEMENT')
    ) AS w (name, type, kinds, of_statements, clause)
    WHERE c.oid = relation AND strpos(w.kinds, c.relkind::text) > 0
      AND coalesce(w.of_statements = notifyman.is_told_by_statement(relation), true);
END $$;

-- The body that a table's trigger function is to have, whatever the session's settings.
CREATE OR REPLACE FUNCTION notifyman.wanted_body(relation oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $$ BEGIN RETURN (
    SELECT CASE o.shape
        WHEN 'keys' THEN notifyman.keys_body(relation, o) ELSE notifyman.rows_body(relation, o) END
    FROM notifyman.installation o
); END $$;

-- The triggers of ours that a table has, and whether each is just as it is wanted.
CREATE OR REPLACE FUNCTION notifyman.present_triggers(relation oid)
RETURNS TABLE (name name, function oid, enabled "char", is_right boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN QUERY
    SELECT t.tgname, t.tgfoid, t.tgenabled,
        coalesce(t.tgtype = w.type AND t.tgqual IS NULL AND t.tgattr = '', false)
            AND t.tgenabled IN ('D', CASE WHEN o.replicated THEN 'A' ELSE 'O' END)
    FROM pg_trigger t
        JOIN pg_proc p ON p.oid = t.tgfoid AND p.pronamespace = 'notifyman'::regnamespace
        LEFT JOIN notifyman.wanted_triggers(relation) w ON w.name = t.tgname,
        notifyman.installation o
    WHERE t.tgrelid = relation AND NOT t.tgisinternal;
END $$;

-- How a table stands, by the catalogs alone and without a lock: 'right', 'disabled' (right, but switched off by
-- somebody, which is left so), 'missing', 'outdated' (but for its function it is right), 'different', 'left over' (it
-- isn't asked for), or NULL where nothing is wanted and nothing is there.
CREATE OR REPLACE FUNCTION notifyman.state(relation oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN (
    WITH present AS MATERIALIZED (
        SELECT * FROM notifyman.present_triggers(relation)
    )
    SELECT CASE
        WHEN NOT notifyman.is_selected(relation) OR NOT EXISTS (SELECT FROM notifyman.wanted_triggers(relation))
            THEN CASE WHEN EXISTS (SELECT FROM present) THEN 'left over' END
        WHEN NOT EXISTS (SELECT FROM present) THEN 'missing'
        WHEN (SELECT count(*) FILTER (WHERE is_right) <> count(*) OR count(DISTINCT function) > 1
                OR count(*) <> (SELECT count(*) FROM notifyman.wanted_triggers(relation)) FROM present) THEN 'different'
        WHEN (SELECT prosrc <> notifyman.wanted_body(relation) OR NOT prosecdef
                OR proconfig IS DISTINCT FROM '{"search_path=pg_catalog, pg_temp"}'
              FROM pg_proc WHERE oid = (SELECT min(function) FROM present)) THEN 'outdated'
        WHEN EXISTS (SELECT FROM present WHERE enabled = 'D') THEN 'disabled'
        ELSE 'right' END
); END $$;

-- Makes a table's trigger function, or makes it anew, and gives its OID. It is called by its triggers alone: nobody may
-- give it to a table of their own.
CREATE OR REPLACE FUNCTION notifyman.make_function(relation oid, present oid) RETURNS oid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $$
DECLARE
    name name := coalesce(
        (SELECT proname FROM pg_proc WHERE oid = present),
        -- What doesn't fit a name is cut off, at its end.
        (SELECT concat(nextval('notifyman.number'), '_', relname)::name FROM pg_class WHERE oid = relation));
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION notifyman.%I() RETURNS trigger LANGUAGE plpgsql '
        'SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %L', name, notifyman.wanted_body(relation));
    EXECUTE format('REVOKE ALL ON FUNCTION notifyman.%I() FROM PUBLIC', name);
    RETURN (SELECT oid FROM pg_proc WHERE proname = name AND pronamespace = 'notifyman'::regnamespace AND pronargs = 0);
END $$;

-- Drops the trigger functions whose tables are gone.
CREATE OR REPLACE FUNCTION notifyman.drop_unused_functions() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name name;
BEGIN
    FOR name IN
        SELECT proname FROM pg_proc
        WHERE pronamespace = 'notifyman'::regnamespace AND prorettype = 'trigger'::regtype
          -- One look at each, however many there are: NOT EXISTS may compare each with each.
          AND oid NOT IN (SELECT tgfoid FROM pg_trigger)
    LOOP
        EXECUTE format('DROP FUNCTION notifyman.%I()', name);
    END LOOP;
END $$;

-- Gives a table what it is to have, takes away what it isn't, and says which it did. Where all is right it locks
-- nothing.
--
-- Only a trigger needs the table's lock: it waits for writers, and they for it (readers wait only where a trigger is
-- dropped). A function is replaced without one.
CREATE OR REPLACE FUNCTION notifyman.cover(relation regclass, can_wait boolean DEFAULT true) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before   text := notifyman.state(relation);
    current  oid;
    disabled boolean;
    always   boolean := (SELECT replicated FROM notifyman.installation);
    t        record;
BEGIN
    IF before IS NULL OR before IN ('right', 'disabled') THEN
        RETURN 'unchanged';
    END IF;
    FOR t IN
        SELECT tgname FROM pg_trigger
        WHERE tgrelid = relation AND tgname IN (SELECT name FROM notifyman.wanted_triggers(relation))
          AND tgname NOT IN (SELECT name FROM notifyman.present_triggers(relation))
    LOOP
        RAISE duplicate_object USING
            MESSAGE = format('trigger %I on table %s is not notifyman''s', t.tgname, relation),
            HINT = 'Rename that trigger, or leave the table out.';
    END LOOP;

    -- What follows is decided under the lock: the columns may have changed while it was waited for.
    IF before <> 'outdated' AND EXISTS (SELECT FROM pg_class WHERE oid = relation AND relkind <> 'f') THEN
        EXECUTE format('LOCK TABLE ONLY %s IN %s MODE %s', relation,
            CASE before WHEN 'missing' THEN 'SHARE ROW EXCLUSIVE' ELSE 'ACCESS EXCLUSIVE' END,
            CASE WHEN can_wait THEN '' ELSE 'NOWAIT' END);
    END IF;
    -- A function that other tables use, too, as an older version's may be, is left to them.
    SELECT min(function) FILTER (WHERE NOT EXISTS (
            SELECT FROM pg_trigger WHERE tgfoid = function AND tgrelid <> relation)),
        coalesce(bool_and(enabled = 'D'), false) INTO current, disabled
        FROM notifyman.present_triggers(relation);
    IF before <> 'left over' THEN
        current := notifyman.make_function(relation, current);
    END IF;

    FOR t IN
        SELECT name FROM notifyman.present_triggers(relation)
        WHERE before = 'left over' OR NOT is_right OR function <> current
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', t.name, relation);
    END LOOP;
    IF before = 'left over' THEN
        RETURN 'removed';
    END IF;

    FOR t IN
        SELECT name, clause FROM notifyman.wanted_triggers(relation)
        WHERE name NOT IN (SELECT p.name FROM notifyman.present_triggers(relation) p)
    LOOP
        EXECUTE format('CREATE TRIGGER %I ' || t.clause || ' EXECUTE FUNCTION %s()',
            t.name, relation, current::regproc);
        IF disabled OR always THEN
            -- This is no change that anybody wants to hear of.
            PERFORM set_config('notifyman.is_covering', 'true', true);
            EXECUTE format('ALTER TABLE ONLY %s %s TRIGGER %I', relation,
                CASE WHEN disabled THEN 'DISABLE' ELSE 'ENABLE ALWAYS' END, t.name);
            PERFORM set_config('notifyman.is_covering', '', true);
        END IF;
    END LOOP;
    RETURN CASE before WHEN 'missing' THEN 'covered' ELSE 'changed' END;
END $$;
