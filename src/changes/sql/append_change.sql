-- Appends a change of a row to the log: a payload without its number and its query. Returns the number, or NULL if the payload
-- is too long. Any role may call this function. It runs as its owner, which alone may write to the tables, so it only takes
-- plain values, and qualifies every name: it calls nothing that a user could have created.
--
-- Each expression costs time in each transaction, so there are few.
DECLARE
    number    pg_catalog.int8 :=
        {number};
    log_table pg_catalog.int8 :=
        {table};
    payload   pg_catalog.text;
BEGIN
    payload := CASE WHEN pg_catalog.octet_length(change) OPERATOR(pg_catalog.<=) {limit} THEN
        pg_catalog.concat('{"number":', number, change, ',"query":', {query}, '}') END;
    LOOP
        {insert}
    END LOOP;
END
