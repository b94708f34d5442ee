-- Appends a payload to the outbox, which its owner alone may write. Where the table is gone, the write goes on.
BEGIN
    IF pg_catalog.to_regclass('notifyman.outbox') IS NOT NULL THEN
        INSERT INTO notifyman.outbox (number, payload)
            VALUES (pg_catalog.substring(payload, '^."number":(-?[0-9]+)')::bigint, payload);
    END IF;
    RETURN true;
END
