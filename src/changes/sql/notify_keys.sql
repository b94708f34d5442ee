-- Notifies keys for triggers that were built for the log and have not been replaced yet.
DECLARE
    payload pg_catalog.text;
BEGIN
    FOREACH payload IN ARRAY notifyman.payloads(relation, table_schema, table_name, method, old_keys, new_keys) LOOP
        PERFORM pg_catalog.pg_notify('notifyman', payload);
    END LOOP;
    RETURN true;
END
