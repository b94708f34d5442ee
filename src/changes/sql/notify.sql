-- Notifies a change for triggers that were built for the log and have not been replaced yet. A payload that is too long
-- for NOTIFY becomes a marker.
DECLARE
    change pg_catalog.json;
BEGIN
    IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.>) {limit} THEN
        change := payload;
        payload := pg_catalog.concat('{"number":', pg_catalog.nextval('notifyman.number'),
            ',"table_schema":', change OPERATOR(pg_catalog.->) 'table_schema',
            ',"table_name":', change OPERATOR(pg_catalog.->) 'table_name',
            ',"session_user":', change OPERATOR(pg_catalog.->) 'session_user',
            ',"method":', change OPERATOR(pg_catalog.->) 'method',
            ',"old_data":null,"new_data":null,"query":null,"truncated":"key"}');
    END IF;
    PERFORM pg_catalog.pg_notify('notifyman', payload);
    RETURN true;
END
