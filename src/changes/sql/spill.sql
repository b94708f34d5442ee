-- Stores a payload that is too long for NOTIFY, and returns the one to send in its place. Any role may call it, and it
-- runs as its owner, which alone may write the table. Where the table is gone, there is none to send.
DECLARE
    head pg_catalog.text := pg_catalog.left(payload, pg_catalog.strpos(payload, ',"old_data":'));
BEGIN
    IF pg_catalog.to_regclass('notifyman.spilled') IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO notifyman.spilled (number, payload)
        VALUES (pg_catalog.substring(payload, '^."number":(-?[0-9]+)')::bigint, payload);
    RETURN pg_catalog.concat(head, '"old_data":null,"new_data":null,"query":null,"spilled":true}');
END
