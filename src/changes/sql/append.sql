-- Appends a payload to the log, under a new number: a number from the caller could hide another row. Any role may call this
-- function. It runs as its owner, which alone may write to the tables.
DECLARE
    number    pg_catalog.int8 :=
        {number};
    log_table pg_catalog.int8;  -- NULL, so that the size is checked for each of these rare payloads
BEGIN
    IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.>) {limit} THEN
        RAISE program_limit_exceeded USING MESSAGE = 'a payload of notifyman has at most {limit} bytes';
    END IF;
    payload := pg_catalog.concat('{"number":', number, pg_catalog.substr(payload, pg_catalog.strpos(payload, ',')));
    LOOP
        {insert}
    END LOOP;
END
