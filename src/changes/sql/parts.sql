-- What the functions of both shapes have in common, as pieces of PL/pgSQL.
--
-- (Functions that query are in PL/pgSQL, which keeps a query's plan for the session; those in SQL make one each time.)

-- The most bytes of a payload: NOTIFY's limit, or what a worker can read of a table in one row.
CREATE OR REPLACE FUNCTION notifyman.payload_limit(o notifyman.installation) RETURNS integer
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE o.delivery WHEN 'table' THEN 15 * 1024 * 1024 ELSE 7999 END
$$;

-- The most bytes of a row that is told whole, by whatever way.
CREATE OR REPLACE FUNCTION notifyman.row_limit(o notifyman.installation) RETURNS integer
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN o.delivery = 'table' OR o.oversize = 'spill' THEN 15 * 1024 * 1024 ELSE 7999 END
$$;

-- As what size() says that a row is looked at, and the weight for that: what is stored may be longer than its JSON, and
-- shorter by far.
CREATE OR REPLACE FUNCTION notifyman.size_limit(o notifyman.installation) RETURNS integer
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT greatest(notifyman.row_limit(o), 16 * 1024)
$$;
CREATE OR REPLACE FUNCTION notifyman.size_weight(o notifyman.installation) RETURNS integer
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN notifyman.row_limit(o) > 7999 THEN 8 ELSE 1 END
$$;

-- What a payload begins with, after its number. A partition's rows are told under the name of the root of its tree.
CREATE OR REPLACE FUNCTION notifyman.head() RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $outer$
    SELECT $$concat(
        '"table_schema":', to_json(coalesce((parse_ident(root::text))[1], TG_TABLE_SCHEMA)),
        ',"table_name":', to_json(coalesce((parse_ident(root::text))[2], TG_TABLE_NAME)),
        CASE WHEN root <> TG_RELID THEN
            concat(',"partition_schema":', to_json(TG_TABLE_SCHEMA), ',"partition_name":', to_json(TG_TABLE_NAME))
        END,
        ',"session_user":', to_json(session_user), ',"method":"', TG_OP, '"')$$
$outer$;

-- The statement's text, or so much of it as shows that it is too long.
CREATE OR REPLACE FUNCTION notifyman.query(o notifyman.installation) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $outer$
    SELECT CASE WHEN o.with_query
        THEN format('coalesce(to_json(left(current_query(), %s))::text, ''null'')', notifyman.payload_limit(o))
        ELSE '''null''' END
$outer$;

-- Puts away a payload that is too long for NOTIFY, so that the notification need only carry its number.
CREATE OR REPLACE FUNCTION notifyman.spill(o notifyman.installation) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $outer$
    SELECT CASE WHEN o.oversize = 'spill' AND o.delivery = 'notify' THEN $$
        IF octet_length(payload) BETWEEN 8000 AND 15 * 1024 * 1024 AND to_regclass('notifyman.spilled') IS NOT NULL THEN
            INSERT INTO notifyman.spilled (number, payload) VALUES (number, payload);
            payload := head || ',"old_data":null,"new_data":null,"query":null,"spilled":true}';
        END IF;$$ ELSE '' END
$outer$;

-- Sends a payload. A condition is evaluated in place, which PERFORM wouldn't be.
CREATE OR REPLACE FUNCTION notifyman.deliver(o notifyman.installation) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $outer$
    SELECT CASE o.delivery WHEN 'notify' THEN
        $$IF pg_notify('notifyman', payload) IS NULL THEN NULL; END IF;$$
    ELSE
        $$IF to_regclass('notifyman.outbox') IS NOT NULL THEN
            INSERT INTO notifyman.outbox (number, payload) VALUES (number, payload);
        END IF;$$
    END
$outer$;

-- Whether a table is told by the statements that write it, rather than row by row. That takes transition tables, which
-- foreign tables can't have, and with which PostgreSQL 12 refuses to attach a table.
CREATE OR REPLACE FUNCTION notifyman.is_told_by_statement(relation oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN (
    SELECT o.shape = 'keys' AND c.relkind <> 'f' AND current_setting('server_version_num')::int >= 130000
    FROM pg_class c, notifyman.installation o WHERE c.oid = relation
); END $$;
