-- The body of the trigger function that tells which rows of one table a statement wrote, by their keys; or one row by
-- its key, where triggers of statements can't be had.
--
-- As in the rows shape, only what can fail is in a block that catches errors.
CREATE OR REPLACE FUNCTION notifyman.keys_body(relation oid, o notifyman.installation) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $outer$ BEGIN RETURN (
    SELECT format($body$
-- Tells which rows of a table a statement wrote. Made by notifyman from the table's key; `notifyman build` makes it
-- anew, so changes by hand don't last.
DECLARE
    root    regclass := pg_partition_root(TG_RELID);
    head    text := %1$s;
    query   text := 'null';
    keys    text[];           -- each written row's key, as JSON; NULL for one where the table has none
    key     text;
    room    integer;
    batch   text;             -- keys that go together
    batches text[] := '{}';
    numbers bigint[];
    payload text;
    number  bigint;
BEGIN
    head := head || ',"old_data":null,"new_data":null,"query":';
    BEGIN
        query := %2$s;
        IF octet_length(query) > 4000 THEN
            query := 'null,"truncated":"query"';
        END IF;
        IF TG_OP = 'INSERT' THEN
            keys := %3$s;
        ELSIF TG_OP = 'UPDATE' THEN
            keys := %4$s;
        ELSIF TG_OP = 'DELETE' THEN
            keys := %5$s;
        ELSE
            keys := '{NULL}';
        END IF;
        IF keys = '{}' THEN
            RETURN NULL;
        END IF;

        room := 7900 - octet_length(head) - octet_length(query);
        FOREACH key IN ARRAY keys LOOP
            -- A row without a key, or with a very long one: the table is told, and no keys.
            IF coalesce(octet_length(key) > room, true) THEN
                batch := NULL;
                batches := '{}';
                EXIT;
            END IF;
            IF batch IS NULL THEN
                batch := key;
            ELSIF octet_length(batch) + octet_length(key) < room THEN
                batch := concat(batch, ',', key);
            ELSE
                batches := batches || batch;
                batch := key;
            END IF;
        END LOOP;
        batches := batches || batch;
        numbers := ARRAY(SELECT nextval('notifyman.number') FROM generate_series(1, cardinality(batches)));
    EXCEPTION WHEN others THEN
        batches := '{NULL}';
    END;

    FOR i IN 1 .. cardinality(batches) LOOP
        number := coalesce(numbers[i], -(extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
        payload := concat('{"number":', number, ',', head, CASE
            WHEN batches[i] IS NOT NULL THEN concat(query, ',"keys":[', batches[i], ']}')
            WHEN TG_OP = 'TRUNCATE' THEN concat(query, ',"keys":null}')
            ELSE 'null,"keys":null,"truncated":"key"}' END);
        %6$s
    END LOOP;
    RETURN NULL;
END
$body$,
        notifyman.head(),
        notifyman.query(o),
        format(arrays.of_insert, old.key, new.key),
        format(arrays.of_update, old.key, new.key),
        format(arrays.of_delete, old.key, new.key),
        notifyman.deliver(o))
    FROM (
        SELECT 'ARRAY(SELECT %2$s FROM new_rows n)' AS of_insert,
            'ARRAY(SELECT %1$s FROM old_rows o UNION SELECT %2$s FROM new_rows n)' AS of_update,
            'ARRAY(SELECT %1$s FROM old_rows o)' AS of_delete,
            'o' AS old, 'n' AS new
        WHERE notifyman.is_told_by_statement(relation)
        UNION ALL
        SELECT 'ARRAY[%2$s]', 'ARRAY(SELECT %1$s UNION SELECT %2$s)', 'ARRAY[%1$s]', 'OLD', 'NEW'
        WHERE NOT notifyman.is_told_by_statement(relation)
    ) arrays,
    LATERAL (SELECT coalesce(notifyman.object(relation, notifyman.key(relation), arrays.old), 'NULL::text') AS key) old,
    LATERAL (SELECT coalesce(notifyman.object(relation, notifyman.key(relation), arrays.new), 'NULL::text') AS key) new
); END $outer$;
