-- For triggers that still run as they did with delivery by the log.
DECLARE
    payload pg_catalog.text;
BEGIN
    FOREACH payload IN ARRAY notifyman.payloads(relation, table_schema, table_name, method, old_keys, new_keys) LOOP
        PERFORM pg_catalog.pg_notify('notifyman', payload);
    END LOOP;
    RETURN true;
END
