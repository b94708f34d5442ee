-- Returns the part of a payload that names the root of a partition's tree, and precedes the partition's schema.
DECLARE
    head pg_catalog.text;
BEGIN
    SELECT pg_catalog.concat(',"table_schema":', pg_catalog.to_json(n.nspname), ',"table_name":', pg_catalog.to_json(c.relname),
            ',"partition_schema":')
        INTO head
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.pg_partition_root(relation)::pg_catalog.oid;
    RETURN head;
END
