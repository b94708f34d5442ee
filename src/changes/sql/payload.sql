-- Returns the payload of a change with a new number, or NULL if it is too long. A partition is reported under the root of its
-- tree.
--
-- Any role may call this function. It runs as its owner, which alone may use the sequence, so it only takes plain values, and
-- qualifies every name: it calls nothing that a user could have created.
DECLARE
    root    pg_catalog.oid := pg_catalog.pg_partition_root(relation);
    schema_ pg_catalog.text;
    name_   pg_catalog.text;
    part    pg_catalog.text;
    payload pg_catalog.text;{declare}
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
        {query}, CASE WHEN truncated IS NOT NULL THEN pg_catalog.concat(',"truncated":"',
            CASE WHEN old_data IS NULL AND new_data IS NULL THEN 'key' ELSE truncated END, '"') END, '}');
    IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.<=) max_bytes THEN
        RETURN payload;
    END IF;{shorten}
    RETURN NULL;
END
