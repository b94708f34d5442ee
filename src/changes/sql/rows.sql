-- The body of the trigger function that tells of each row of one table.
--
-- It names nothing but what every server has, and this schema's own tables only where they are there: whatever becomes
-- of them, a write goes on. Making JSON can fail (a column that has gone since this was written, a value that is too
-- long), so that is in a block that catches errors. The block costs a microsecond; a NOTIFY in it would cost four, and
-- an INSERT a transaction number a row.
CREATE OR REPLACE FUNCTION notifyman.rows_body(relation oid, o notifyman.installation) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $outer$ BEGIN RETURN (
    SELECT format($body$
-- Tells of each row that is written to a table. Made by notifyman from the table's columns; `notifyman build` makes it
-- anew, so changes by hand don't last.
DECLARE
    root    regclass := pg_partition_root(TG_RELID);
    head    text := %1$s;
    query   text := 'null';
    was     text := 'null';  -- the row before
    now     text := 'null';  -- and after
    was_key text := 'null';  -- the same by their keys alone, where the whole is long
    now_key text := 'null';
    has_key boolean := %2$L;
    is_long boolean := false;
    number  bigint;
    payload text;
BEGIN
    BEGIN
        number := nextval('notifyman.number');
        query := %3$s;
        IF TG_OP IN ('UPDATE', 'DELETE') THEN
            is_long := %4$s > %8$s;
            IF NOT is_long THEN was := %5$s; END IF;
        END IF;
        IF TG_OP IN ('INSERT', 'UPDATE') THEN
            is_long := is_long OR %6$s > %8$s;
            IF NOT is_long THEN now := %7$s; END IF;
        END IF;
        IF has_key AND (is_long OR octet_length(was) + octet_length(now) > %9$s - 3000) THEN
            IF TG_OP IN ('UPDATE', 'DELETE') THEN was_key := %10$s; END IF;
            IF TG_OP IN ('INSERT', 'UPDATE') THEN now_key := %11$s; END IF;
        END IF;
        -- What is put together below can't be too long for a text.
        is_long := is_long OR octet_length(was) + octet_length(now) > %14$s;
    EXCEPTION WHEN others THEN
        is_long := true;
        has_key := false;
    END;
    number := coalesce(number, -(extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
    head := concat('{"number":', number, ',', head);

    IF NOT is_long THEN
        payload := concat(head, ',"old_data":', was, ',"new_data":', now, ',"query":', query, '}');%12$s
        IF octet_length(payload) > %9$s AND query <> 'null' THEN
            payload := concat(head, ',"old_data":', was, ',"new_data":', now, ',"query":null,"truncated":"query"}');
        END IF;
        is_long := octet_length(payload) > %9$s;
    END IF;
    IF is_long AND has_key THEN
        payload := concat(head, ',"old_data":', was_key, ',"new_data":', now_key, ',"query":null,"truncated":"row"}');
        is_long := octet_length(payload) > %9$s;
    END IF;
    IF is_long THEN
        payload := concat(head, ',"old_data":null,"new_data":null,"query":null,"truncated":"key"}');
    END IF;
    %13$s
    RETURN NULL;
END
$body$,
        notifyman.head(),
        notifyman.key(relation) IS NOT NULL AND o.oversize <> 'marker',
        notifyman.query(o),
        notifyman.size(relation, 'OLD', notifyman.size_weight(o)),
        notifyman.object(relation, notifyman.columns(relation), 'OLD'),
        notifyman.size(relation, 'NEW', notifyman.size_weight(o)),
        notifyman.object(relation, notifyman.columns(relation), 'NEW'),
        notifyman.size_limit(o), notifyman.payload_limit(o),
        coalesce(notifyman.object(relation, notifyman.key(relation), 'OLD'), '''null'''),
        coalesce(notifyman.object(relation, notifyman.key(relation), 'NEW'), '''null'''),
        notifyman.spill(o),
        notifyman.deliver(o),
        notifyman.row_limit(o))
); END $outer$;
