-- The type that a domain is made of, whatever lies between; of another type, that type.
CREATE OR REPLACE FUNCTION notifyman.base_type(type oid) RETURNS oid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base oid := type;
BEGIN
    WHILE EXISTS (SELECT FROM pg_type WHERE oid = base AND typtype = 'd') LOOP
        base := (SELECT typbasetype FROM pg_type WHERE oid = base);
    END LOOP;
    RETURN base;
END $$;

-- An expression's value as JSON text, as an SQL expression; NULL gives NULL.
--
-- The functions that use it run with the rights of whoever installed them. to_json() would call a cast to json where
-- the type's owner made one, and lend those rights to it: so it is given built-in types alone (whose OIDs are below
-- 16384), and every other value is taken by its output function.
CREATE OR REPLACE FUNCTION notifyman.as_json(expression text, type oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t pg_type;
    element pg_type;
    fields text;
BEGIN
    SELECT * INTO t FROM pg_type WHERE oid = notifyman.base_type(type);
    IF t.typcategory = 'A' AND t.typelem <> 0 THEN
        SELECT * INTO element FROM pg_type WHERE oid = t.typelem;
    END IF;

    IF t.oid = 'numeric'::regtype THEN
        -- Readers of JSON can't be expected to know numbers that no double does.
        RETURN format('CASE WHEN abs(%1$s) < 1e300 THEN %1$s::text ELSE to_json(%1$s::text)::text END', expression);
    ELSIF t.oid < 16384 OR element.oid < 16384 THEN
        RETURN format('to_json(%s)::text', expression);
    ELSIF element.oid IS NOT NULL THEN
        SELECT * INTO element FROM pg_type WHERE oid = notifyman.base_type(element.oid);
        RETURN format('CASE WHEN %1$s IS NOT NULL THEN to_json(format(''%%s'', %1$s)::%2$s[])::text END', expression,
            CASE WHEN element.oid < 16384 AND element.typelem = 0 THEN format_type(element.oid, NULL) ELSE 'text' END);
    ELSIF t.typtype = 'c' THEN
        SELECT string_agg(
                format('%L || coalesce(%s, ''null'')',
                    CASE WHEN n = 1 THEN '{' ELSE ',' END || to_json(attname) || ':',
                    notifyman.as_json(format('(%s).%I', expression, attname), atttypid)),
                ' || ' ORDER BY n)
            INTO fields
            FROM (SELECT attname, atttypid, row_number() OVER (ORDER BY attnum) AS n
                  FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) a;
        RETURN format('CASE WHEN %s IS DISTINCT FROM NULL THEN %s || ''}'' END', expression, coalesce(fields, '''{'''));
    END IF;
    RETURN format('CASE WHEN %1$s IS NOT NULL THEN to_json(format(''%%s'', %1$s))::text END', expression);
END $$;

-- Columns of a row variable as a JSON object, as an SQL expression; NULL where no columns are given. concat() takes a
-- hundred arguments.
CREATE OR REPLACE FUNCTION notifyman.object(relation oid, columns int2[], variable text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN (
    SELECT CASE WHEN columns IS NOT NULL THEN
        coalesce(string_agg(format('concat(%s)', parts), ' || ' ORDER BY chunk), '''{''') || ' || ''}''' END
    FROM (SELECT (n - 1) / 40 AS chunk,
                 string_agg(
                    format('%L, coalesce(%s, ''null'')',
                        CASE WHEN n = 1 THEN '{' ELSE ',' END || to_json(attname) || ':',
                        notifyman.as_json(format('%s.%I', variable, attname), atttypid)),
                    ', ' ORDER BY n) AS parts
          FROM (SELECT a.attname, a.atttypid, row_number() OVER (ORDER BY a.attnum) AS n
                FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum = ANY (columns)) a
          GROUP BY 1) chunks
); END $$;

-- The columns that are told. Virtual generated ones have no value in a trigger.
CREATE OR REPLACE FUNCTION notifyman.columns(relation oid) RETURNS int2[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN (
    SELECT coalesce(array_agg(attnum ORDER BY attnum), '{}') FROM pg_attribute
    WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped AND attgenerated <> 'v'
); END $$;

-- The columns of the primary key, else of the replica identity's index; NULL where there is neither.
CREATE OR REPLACE FUNCTION notifyman.key(relation oid) RETURNS int2[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN (
    SELECT (string_to_array(indkey::text, ' ')::int2[])[1:indnkeyatts] FROM pg_index
    WHERE indrelid = relation AND (indisprimary OR indisreplident) AND indisvalid
    ORDER BY indisprimary DESC LIMIT 1
); END $$;

-- About how many bytes the values of a row take in whole, as an SQL expression. It reads no value from where long ones
-- are kept apart, so that a row of a gigabyte costs no more than a small one. So of texts the length is known, and of
-- other types what is stored, which grows as it is read where it is compressed: each of these bytes counts for several.
CREATE OR REPLACE FUNCTION notifyman.size(relation oid, variable text, weight integer) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN (
    -- In pieces, since a sum of 1,600 is too deep for the parser's stack.
    SELECT coalesce(string_agg(format('(%s)', parts), ' + ' ORDER BY piece), '0')
    FROM (SELECT n / 40 AS piece,
                 string_agg(
                    format('coalesce(' || CASE WHEN base IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype,
                            'bytea'::regtype) THEN 'octet_length(%1$s.%2$I)::int8'
                        ELSE 'pg_column_size(%1$s.%2$I)::int8 * %3$s' END || ', 0)',
                        variable, attname, weight),
                    ' + ' ORDER BY n) AS parts
          FROM (SELECT attname, row_number() OVER (ORDER BY attnum) AS n, notifyman.base_type(atttypid) AS base
                FROM pg_attribute
                WHERE attrelid = relation AND attnum = ANY (notifyman.columns(relation)) AND attlen = -1) a
          GROUP BY 1) pieces
); END $$;
