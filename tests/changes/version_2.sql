-- What version 2 made in a database with a table `t (id int PRIMARY KEY, v text)`, by `build --delivery table
-- --no-schema-events --owner earlier_owner`.
CREATE ROLE earlier_owner NOLOGIN;
COMMENT ON ROLE earlier_owner IS 'Owns what notifyman runs with rights of its own. Made by `notifyman build`: give it to no role.';
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET LOCAL search_path = pg_catalog, pg_temp;
CREATE SCHEMA IF NOT EXISTS notifyman;
COMMENT ON SCHEMA notifyman IS 'Tells of table changes by NOTIFY. Made by `notifyman build`; `notifyman teardown` removes it and its triggers.
{"delivery":"table","except_schemas":[],"except_tables":[],"oversize":"key","owner":"earlier_owner","replicated":false,"schema_events":false,"schemas":[],"shape":"rows","tables":[],"version":2,"with_query":false}';
REVOKE ALL ON SCHEMA notifyman FROM PUBLIC;
GRANT USAGE ON SCHEMA notifyman TO PUBLIC, "earlier_owner";
-- A role that is not a superuser can give something only to a role that may create it.
GRANT CREATE ON SCHEMA notifyman TO "earlier_owner";

-- What an earlier build made is made again, but for the functions of tables, whose triggers work meanwhile.
DO $$
DECLARE
    part text;
BEGIN
    FOR part IN
        SELECT format('DROP EVENT TRIGGER %I', evtname) FROM pg_event_trigger
        WHERE evtfoid IN (SELECT oid FROM pg_proc WHERE pronamespace = 'notifyman'::regnamespace)
        UNION ALL
        SELECT format('DROP FUNCTION %s', oid::regprocedure) FROM pg_proc
        WHERE pronamespace = 'notifyman'::regnamespace AND prorettype <> 'trigger'::regtype
          AND concat(proname, '(', pg_get_function_identity_arguments(oid), ')') <> ALL (ARRAY['payload(relation oid, table_schema text, table_name text, method text, old_data json, new_data json, truncated text, max_bytes integer)', 'payloads(relation oid, table_schema text, table_name text, method text, old_keys text[], new_keys text[])', 'append(payload text)', 'spill(payload text)', 'rows()', 'truncated()', 'markers()'])
    LOOP
        EXECUTE part;
    END LOOP;
    -- Of version 1.
    IF to_regclass('notifyman.installation') IS NOT NULL THEN
        DROP TABLE notifyman.installation;
    END IF;
END $$;

-- Numbers every change, so that no two payloads are equal: PostgreSQL folds equal ones of one transaction.
CREATE SEQUENCE IF NOT EXISTS notifyman.number;
GRANT USAGE ON SEQUENCE notifyman.number TO "earlier_owner";

-- All payloads, with `--delivery table`. A worker reads and clears it. (With the identity it can be cleared also where
-- it is published.) Its index is not unique: a sequence that was set back must not make a write fail. To ask for one that
-- is there takes the table's lock all the same, which every transaction has that reported something: so it is looked for.
CREATE TABLE IF NOT EXISTS notifyman.outbox (
    number     bigint      NOT NULL,
    payload    text        NOT NULL,
    written_at timestamptz NOT NULL DEFAULT pg_catalog.statement_timestamp()
);
DO $$ BEGIN
    IF to_regclass('notifyman.outbox_number') IS NULL THEN
        CREATE INDEX outbox_number ON notifyman.outbox (number);
    END IF;
    IF (SELECT relreplident FROM pg_class WHERE oid = 'notifyman.outbox'::regclass) <> 'f' THEN
        ALTER TABLE notifyman.outbox REPLICA IDENTITY FULL;
    END IF;
END $$;
GRANT INSERT ON notifyman.outbox TO "earlier_owner";

CREATE OR REPLACE FUNCTION notifyman.payload(relation oid, table_schema text, table_name text, method text, old_data json, new_data json, truncated text, max_bytes integer) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $body0$
#variable_conflict use_variable
-- Numbers a change and names its table. A partition is reported under the root of its tree. NULL for what is too long.
--
-- Any role may call it, and it runs as its owner, because a number takes the right to use the sequence. So it takes
-- numbers and plain values only, and every name in it is qualified: it calls nothing that a user could have made.
DECLARE
    root    pg_catalog.oid := pg_catalog.pg_partition_root(relation);
    schema_ pg_catalog.text;
    name_   pg_catalog.text;
    part    pg_catalog.text;
    payload pg_catalog.text;
BEGIN
    IF root IS NOT NULL OR relation IS NULL THEN
        IF relation IS NULL THEN
            RETURN pg_catalog.concat('{"number":', pg_catalog.nextval('notifyman.number'), ',',
                pg_catalog.substr(new_data::pg_catalog.text, 2));
        ELSIF root OPERATOR(pg_catalog.<>) relation THEN
            part := pg_catalog.concat(',"partition_schema":', pg_catalog.to_json(table_schema),
                ',"partition_name":', pg_catalog.to_json(table_name));
            SELECT n.nspname, c.relname INTO schema_, name_
                FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                WHERE c.oid OPERATOR(pg_catalog.=) root;
        END IF;
    END IF;
    payload := pg_catalog.concat('{"number":', pg_catalog.nextval('notifyman.number'),
        ',"table_schema":', pg_catalog.to_json(coalesce(schema_, table_schema)),
        ',"table_name":', pg_catalog.to_json(coalesce(name_, table_name)), part,
        ',"session_user":', pg_catalog.to_json(session_user), ',"method":"', method,
        '","old_data":', CASE WHEN truncated IS NOT NULL AND method OPERATOR(pg_catalog.=) 'INSERT' THEN 'null'
            ELSE coalesce(old_data, 'null') END,
        ',"new_data":', CASE WHEN truncated IS NOT NULL AND method OPERATOR(pg_catalog.=) 'DELETE' THEN 'null'
            ELSE coalesce(new_data, 'null') END,
        ',"query":null', CASE WHEN truncated IS NOT NULL THEN pg_catalog.concat(',"truncated":"',
            CASE WHEN old_data IS NULL AND new_data IS NULL THEN 'key' ELSE truncated END, '"') END, '}');
    IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.<=) max_bytes THEN
        RETURN payload;
    END IF;
    RETURN NULL;
END
$body0$;
GRANT EXECUTE ON FUNCTION notifyman.payload(relation oid, table_schema text, table_name text, method text, old_data json, new_data json, truncated text, max_bytes integer) TO PUBLIC;
ALTER FUNCTION notifyman.payload(relation oid, table_schema text, table_name text, method text, old_data json, new_data json, truncated text, max_bytes integer) OWNER TO "earlier_owner";

CREATE OR REPLACE FUNCTION notifyman.payloads(relation oid, table_schema text, table_name text, method text, old_keys text[], new_keys text[]) RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER AS $body0$
#variable_conflict use_variable
-- Numbers what a statement did and names its table, with as many keys in each payload as NOTIFY takes: those of the rows
-- before and after, each once.
--
-- Any role may call it, and it runs as its owner, because a number takes the right to use the sequence. So it takes
-- numbers and plain values only, and every name in it is qualified: it calls nothing that a user could have made.
DECLARE
    keys     pg_catalog.text[];
    key      pg_catalog.text;
    batch    pg_catalog.text;  -- keys that are sent together
    batches  pg_catalog.text[];
    longest  pg_catalog.int4;
    room     pg_catalog.int4;
    many     pg_catalog.int4;
    payload  pg_catalog.text;
    payloads pg_catalog.text[];
    head     pg_catalog.text;
    query    pg_catalog.text;
BEGIN
    IF old_keys IS NULL OR old_keys OPERATOR(pg_catalog.=) new_keys THEN
        keys := new_keys;
    ELSIF new_keys IS NULL THEN
        keys := old_keys;
    ELSE
        keys := ARRAY(SELECT k FROM pg_catalog.unnest(old_keys) k UNION SELECT k FROM pg_catalog.unnest(new_keys) k);
    END IF;
    -- The way of most statements.
    IF pg_catalog.cardinality(keys) OPERATOR(pg_catalog.=) 1 AND keys[1] IS NOT NULL
        AND pg_catalog.pg_partition_root(relation) IS NULL THEN
        payload := pg_catalog.concat('{"number":', pg_catalog.nextval('notifyman.number'),
            ',"table_schema":', pg_catalog.to_json(table_schema), ',"table_name":', pg_catalog.to_json(table_name),
            ',"session_user":', pg_catalog.to_json(session_user), ',"method":"', method,
            '","old_data":null,"new_data":null,"query":', 'null', ',"keys":[', keys[1], ']}');
        IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.<=) 7999 THEN
            RETURN ARRAY[payload];
        END IF;
    ELSIF pg_catalog.cardinality(keys) OPERATOR(pg_catalog.=) 0 THEN
        RETURN keys;
    END IF;

    head := pg_catalog.concat(',"table_schema":', pg_catalog.to_json(table_schema),
        ',"table_name":', pg_catalog.to_json(table_name));
    IF pg_catalog.pg_partition_root(relation)::pg_catalog.oid OPERATOR(pg_catalog.<>) relation THEN
        SELECT pg_catalog.concat(',"table_schema":', pg_catalog.to_json(n.nspname), ',"table_name":', pg_catalog.to_json(c.relname),
                ',"partition_schema":', pg_catalog.to_json(table_schema), ',"partition_name":', pg_catalog.to_json(table_name))
            INTO head
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
            WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.pg_partition_root(relation)::pg_catalog.oid;
    END IF;
    query := 'null';
    head := pg_catalog.concat(head, ',"session_user":', pg_catalog.to_json(session_user), ',"method":"', method,
        '","old_data":null,"new_data":null,"query":', query, ',"keys":');
    -- Beside the head there are a number, brackets, and what is said where there are no keys.
    room := 7940 OPERATOR(pg_catalog.-) pg_catalog.octet_length(head);
    batch := pg_catalog.array_to_string(keys, ',');
    longest := (SELECT pg_catalog.max(pg_catalog.octet_length(k)) FROM pg_catalog.unnest(keys) k);
    -- A row without a key, or with a very long one: only the table is reported.
    IF pg_catalog.array_position(keys, NULL) IS NOT NULL OR longest OPERATOR(pg_catalog.>=) room THEN
        RETURN ARRAY[pg_catalog.concat('{"number":', pg_catalog.nextval('notifyman.number'), head,
            CASE WHEN method OPERATOR(pg_catalog.=) 'TRUNCATE' THEN 'null}' ELSE 'null,"truncated":"key"}' END)];
    ELSIF pg_catalog.octet_length(batch) OPERATOR(pg_catalog.<) room THEN
        RETURN ARRAY[pg_catalog.concat('{"number":', pg_catalog.nextval('notifyman.number'), head, '[', batch, ']}')];
    ELSIF longest::bigint OPERATOR(pg_catalog.*) pg_catalog.cardinality(keys)
        OPERATOR(pg_catalog.<) (2 OPERATOR(pg_catalog.*) pg_catalog.octet_length(batch)::bigint) THEN
        -- Keys of about one length are cut into parts of as many as fit, which is the fast way.
        many := room OPERATOR(pg_catalog./) (longest OPERATOR(pg_catalog.+) 1);
        RETURN ARRAY(
            SELECT pg_catalog.concat('{"number":', pg_catalog.nextval('notifyman.number'), head, '[',
                pg_catalog.array_to_string(keys[i:i OPERATOR(pg_catalog.+) many OPERATOR(pg_catalog.-) 1], ','), ']}')
            FROM pg_catalog.generate_series(1, pg_catalog.cardinality(keys), many) i);
    END IF;
    batch := NULL;
    FOREACH key IN ARRAY keys LOOP
        IF batch IS NULL THEN
            batch := key;
        ELSIF pg_catalog.octet_length(batch) OPERATOR(pg_catalog.+) pg_catalog.octet_length(key)
            OPERATOR(pg_catalog.<) room THEN
            batch := pg_catalog.concat(batch, ',', key);
        ELSE
            batches := pg_catalog.array_append(batches, batch);
            batch := key;
        END IF;
    END LOOP;
    FOREACH batch IN ARRAY pg_catalog.array_append(batches, batch) LOOP
        payloads := pg_catalog.array_append(payloads,
            pg_catalog.concat('{"number":', pg_catalog.nextval('notifyman.number'), head, '[', batch, ']}'));
    END LOOP;
    RETURN payloads;
END
$body0$;
GRANT EXECUTE ON FUNCTION notifyman.payloads(relation oid, table_schema text, table_name text, method text, old_keys text[], new_keys text[]) TO PUBLIC;
ALTER FUNCTION notifyman.payloads(relation oid, table_schema text, table_name text, method text, old_keys text[], new_keys text[]) OWNER TO "earlier_owner";

CREATE OR REPLACE FUNCTION notifyman.append(payload text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $body0$
#variable_conflict use_variable
-- Appends a payload to the outbox, where there is one. Any role may call it, and it runs as its owner, which alone may
-- write the table. The row has a number of its own: one that a caller chose could hide another row.
BEGIN
    IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.>) 15728640 THEN
        RAISE program_limit_exceeded USING MESSAGE = 'a payload of notifyman has at most 15728640 bytes';
    ELSIF pg_catalog.to_regclass('notifyman.outbox') IS NOT NULL THEN
        INSERT INTO notifyman.outbox (number, payload) VALUES (pg_catalog.nextval('notifyman.number'), payload);
    END IF;
    RETURN true;
END
$body0$;
GRANT EXECUTE ON FUNCTION notifyman.append(payload text) TO PUBLIC;
ALTER FUNCTION notifyman.append(payload text) OWNER TO "earlier_owner";

CREATE OR REPLACE FUNCTION notifyman.spill(payload text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $body0$
#variable_conflict use_variable
-- Stores a payload that is too long for NOTIFY, and returns the one to send in its place; NULL where there is no table.
-- Any role may call it, and it runs as its owner, which alone may write the table. The payload gets another number: one
-- that a caller chose could hide another row.
DECLARE
    number pg_catalog.int8;
    head   pg_catalog.text;
BEGIN
    IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.>) 15728640 THEN
        RAISE program_limit_exceeded USING MESSAGE = 'a payload of notifyman has at most 15728640 bytes';
    ELSIF pg_catalog.to_regclass('notifyman.spilled') IS NULL THEN
        RETURN NULL;
    END IF;
    number := pg_catalog.nextval('notifyman.number');
    payload := pg_catalog.concat('{"number":', number, pg_catalog.substr(payload, pg_catalog.strpos(payload, ',')));
    head := pg_catalog.left(payload, pg_catalog.strpos(payload, ',"old_data":'));
    INSERT INTO notifyman.spilled (number, payload) VALUES (number, payload);
    RETURN pg_catalog.concat(head, '"old_data":null,"new_data":null,"query":null,"spilled":true}');
END
$body0$;
GRANT EXECUTE ON FUNCTION notifyman.spill(payload text) TO PUBLIC;
ALTER FUNCTION notifyman.spill(payload text) OWNER TO "earlier_owner";

CREATE OR REPLACE FUNCTION notifyman.rows() RETURNS trigger LANGUAGE plpgsql AS $body0$
#variable_conflict use_variable
-- Reports each row that is written. `notifyman build` makes it, and makes it again, so a change by hand does not last.
--
-- It runs as the role that writes, and the search path is that role's: so every name in it is qualified. What can fail
-- is in a block that catches it, and the write goes on; nothing is sent in such a block, where a NOTIFY costs more. Each
-- session compiles it for each table: so it is short, and what it can leave to others it does.
DECLARE
    payload pg_catalog.text;
    nothing pg_catalog.record;
BEGIN
    BEGIN
        payload := notifyman.payload(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
            pg_catalog.row_to_json(OLD), pg_catalog.row_to_json(NEW), NULL, 15728640);
    EXCEPTION WHEN others OR assert_failure THEN
        -- A column has another type than when this session first wrote here. The row as a whole has none.
        BEGIN
            payload := notifyman.payload(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
            pg_catalog.row_to_json(OLD), pg_catalog.row_to_json(NEW), NULL, 15728640);
        EXCEPTION WHEN others OR assert_failure THEN
            payload := NULL;
        END;
    END;
    IF payload IS NULL THEN
        BEGIN
            payload := coalesce(notifyman.payload(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
            (SELECT pg_catalog.concat('{', pg_catalog.string_agg(pg_catalog.concat(pg_catalog.to_json(a.attname), ':',
                coalesce(pg_catalog.row_to_json(OLD) OPERATOR(pg_catalog.->) a.attname::pg_catalog.text, 'null')), ',' ORDER BY a.attnum), '}')
            FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) TG_RELID
              AND a.attnum OPERATOR(pg_catalog.=) ANY ((
                SELECT (pg_catalog.string_to_array(i.indkey::pg_catalog.text, ' ')::pg_catalog.int2[])[1:i.indnkeyatts]
                FROM pg_catalog.pg_index i
                WHERE i.indrelid OPERATOR(pg_catalog.=) TG_RELID AND (i.indisprimary OR i.indisreplident)
                ORDER BY i.indisprimary DESC LIMIT 1)::pg_catalog.int2[])
            HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0)::pg_catalog.json, (SELECT pg_catalog.concat('{', pg_catalog.string_agg(pg_catalog.concat(pg_catalog.to_json(a.attname), ':',
                coalesce(pg_catalog.row_to_json(NEW) OPERATOR(pg_catalog.->) a.attname::pg_catalog.text, 'null')), ',' ORDER BY a.attnum), '}')
            FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) TG_RELID
              AND a.attnum OPERATOR(pg_catalog.=) ANY ((
                SELECT (pg_catalog.string_to_array(i.indkey::pg_catalog.text, ' ')::pg_catalog.int2[])[1:i.indnkeyatts]
                FROM pg_catalog.pg_index i
                WHERE i.indrelid OPERATOR(pg_catalog.=) TG_RELID AND (i.indisprimary OR i.indisreplident)
                ORDER BY i.indisprimary DESC LIMIT 1)::pg_catalog.int2[])
            HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0)::pg_catalog.json, 'row', 7999), notifyman.payload(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
            NULL, NULL, 'key', 7999));
        EXCEPTION WHEN others OR assert_failure THEN
            RAISE WARNING 'notifyman: a change is not reported, since the installation is damaged'
                USING HINT = 'Run `notifyman build` with the same options.';
            RETURN nothing;
        END;
    END IF;
    IF notifyman.append(payload) IS NULL THEN NULL; END IF;
    RETURN nothing;
END
$body0$;
GRANT EXECUTE ON FUNCTION notifyman.rows() TO PUBLIC;
ALTER FUNCTION notifyman.rows() OWNER TO CURRENT_USER;

CREATE OR REPLACE FUNCTION notifyman.truncated() RETURNS trigger LANGUAGE plpgsql AS $body0$
#variable_conflict use_variable
-- Reports that a table was written, without rows. It runs as the role that writes: so every name in it is qualified.
DECLARE
    payload pg_catalog.text;
    nothing pg_catalog.record;
BEGIN
    BEGIN
        payload := notifyman.payload(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
            NULL, NULL, NULL, 7999);
    EXCEPTION WHEN others OR assert_failure THEN
        RAISE WARNING 'notifyman: a change is not reported, since the installation is damaged'
                USING HINT = 'Run `notifyman build` with the same options.';
            RETURN nothing;
    END;
    IF notifyman.append(payload) IS NULL THEN NULL; END IF;
    RETURN nothing;
END
$body0$;
GRANT EXECUTE ON FUNCTION notifyman.truncated() TO PUBLIC;
ALTER FUNCTION notifyman.truncated() OWNER TO CURRENT_USER;

CREATE OR REPLACE FUNCTION notifyman.markers() RETURNS trigger LANGUAGE plpgsql AS $body0$
#variable_conflict use_variable
-- Reports that a table was written, without rows. It runs as the role that writes: so every name in it is qualified.
DECLARE
    payload pg_catalog.text;
    nothing pg_catalog.record;
BEGIN
    BEGIN
        payload := notifyman.payload(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
            NULL, NULL, 'key', 7999);
    EXCEPTION WHEN others OR assert_failure THEN
        RAISE WARNING 'notifyman: a change is not reported, since the installation is damaged'
                USING HINT = 'Run `notifyman build` with the same options.';
            RETURN nothing;
    END;
    IF notifyman.append(payload) IS NULL THEN NULL; END IF;
    RETURN nothing;
END
$body0$;
GRANT EXECUTE ON FUNCTION notifyman.markers() TO PUBLIC;
ALTER FUNCTION notifyman.markers() OWNER TO CURRENT_USER;

CREATE OR REPLACE FUNCTION notifyman.rows_c664b4cd28173d03a00b395747829eb7() RETURNS trigger LANGUAGE plpgsql AS $body0$
#variable_conflict use_variable
-- Reports each row that is written. `notifyman build` makes it, and makes it again, so a change by hand does not last.
--
-- It runs as the role that writes, and the search path is that role's: so every name in it is qualified. What can fail
-- is in a block that catches it, and the write goes on; nothing is sent in such a block, where a NOTIFY costs more. Each
-- session compiles it for each table: so it is short, and what it can leave to others it does.
DECLARE
    payload pg_catalog.text;
    nothing pg_catalog.record;
BEGIN
    BEGIN
        payload := CASE WHEN (((coalesce(pg_catalog.octet_length(OLD."v"), 0)::bigint OPERATOR(pg_catalog.*) 1))) OPERATOR(pg_catalog.>) 15728640 OR (((coalesce(pg_catalog.octet_length(NEW."v"), 0)::bigint OPERATOR(pg_catalog.*) 1))) OPERATOR(pg_catalog.>) 15728640
            THEN NULL ELSE notifyman.payload(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
            pg_catalog.row_to_json(OLD), pg_catalog.row_to_json(NEW), NULL, 15728640) END;
    EXCEPTION WHEN others OR assert_failure THEN
        -- A column has another type than when this session first wrote here. The row as a whole has none.
        BEGIN
            payload := notifyman.payload(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
            pg_catalog.row_to_json(OLD), pg_catalog.row_to_json(NEW), NULL, 15728640);
        EXCEPTION WHEN others OR assert_failure THEN
            payload := NULL;
        END;
    END;
    IF payload IS NULL THEN
        BEGIN
            payload := coalesce(notifyman.payload(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
            pg_catalog.concat('{"id":', coalesce(pg_catalog.to_json(OLD."id"), 'null'), '}')::pg_catalog.json, pg_catalog.concat('{"id":', coalesce(pg_catalog.to_json(NEW."id"), 'null'), '}')::pg_catalog.json, 'row', 7999), notifyman.payload(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
            NULL, NULL, 'key', 7999));
        EXCEPTION WHEN others OR assert_failure THEN
            RAISE WARNING 'notifyman: a change is not reported, since the installation is damaged'
                USING HINT = 'Run `notifyman build` with the same options.';
            RETURN nothing;
        END;
    END IF;
    IF notifyman.append(payload) IS NULL THEN NULL; END IF;
    RETURN nothing;
END
$body0$;
GRANT EXECUTE ON FUNCTION notifyman.rows_c664b4cd28173d03a00b395747829eb7() TO PUBLIC;
ALTER FUNCTION notifyman.rows_c664b4cd28173d03a00b395747829eb7() OWNER TO CURRENT_USER;

REVOKE CREATE ON SCHEMA notifyman FROM "earlier_owner";
COMMIT;

BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET LOCAL search_path = pg_catalog, pg_temp;
CREATE TRIGGER "0_notifyman" AFTER INSERT OR UPDATE OR DELETE ON public.t FOR EACH ROW EXECUTE FUNCTION notifyman.rows_c664b4cd28173d03a00b395747829eb7();
CREATE TRIGGER "0_notifyman_truncate" AFTER TRUNCATE ON public.t FOR EACH STATEMENT EXECUTE FUNCTION notifyman.truncated();
COMMIT;
