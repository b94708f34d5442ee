-- Appends a payload to the log, under a number of its own: one that a caller chose could hide another row. Any role may
-- call it, and it runs as its owner, which alone may write the tables.
DECLARE
    number    pg_catalog.int8 :=
        {number};
    log_table pg_catalog.int8;  -- what is rare looks at the size each time
BEGIN
    IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.>) {limit} THEN
        RAISE program_limit_exceeded USING MESSAGE = 'a payload of notifyman has at most {limit} bytes';
    END IF;
    payload := pg_catalog.concat('{"number":', number, pg_catalog.substr(payload, pg_catalog.strpos(payload, ',')));
    LOOP
        {insert}
    END LOOP;
END
