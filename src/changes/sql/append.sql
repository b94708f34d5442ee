-- Appends a payload to the outbox, where there is one. Any role may call it, and it runs as its owner, which alone may
-- write the table. The row has a number of its own: one that a caller chose could hide another row.
BEGIN
    IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.>) {limit} THEN
        RAISE program_limit_exceeded USING MESSAGE = 'a payload of notifyman has at most {limit} bytes';
    ELSIF pg_catalog.to_regclass('notifyman.outbox') IS NOT NULL THEN
        INSERT INTO notifyman.outbox (number, payload) VALUES (pg_catalog.nextval('notifyman.number'), payload);
    END IF;
    RETURN true;
END
