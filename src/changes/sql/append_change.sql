-- Appends a change of a row to the log: a payload without its number and its query. Returns its number, or NULL for what is
-- too long. Any role may call it, and it runs as its owner, which alone may write the tables. So it takes plain values only,
-- and every name in it is qualified: it calls nothing that a user could have made.
--
-- Each expression takes its time in each transaction, so there are few.
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
