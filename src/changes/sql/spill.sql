-- Stores a payload that is too long for NOTIFY, and returns the payload to send in its place, or NULL if there is no table. Any
-- role may call this function. It runs as its owner, which alone may write to the table. The payload gets a new number: a number
-- from the caller could hide another row.
DECLARE
    number pg_catalog.int8;
    head   pg_catalog.text;
BEGIN
    IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.>) {limit} THEN
        RAISE program_limit_exceeded USING MESSAGE = 'a payload of notifyman has at most {limit} bytes';
    ELSIF pg_catalog.to_regclass('notifyman.spilled') IS NULL THEN
        RETURN NULL;
    END IF;
    number := pg_catalog.nextval('notifyman.number');
    payload := pg_catalog.concat('{"number":', number, pg_catalog.substr(payload, pg_catalog.strpos(payload, ',')));
    head := pg_catalog.left(payload, pg_catalog.strpos(payload, ',"old_data":'));
    INSERT INTO notifyman.spilled (number, payload) VALUES (number, payload);
    RETURN pg_catalog.concat(head, '"old_data":null,"new_data":null,"query":null,"spilled":true}');
END
