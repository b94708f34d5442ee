-- Reports which rows a statement wrote, by their keys; or one row, where triggers of statements are not possible.
-- `notifyman build` makes it, and makes it again, so a change by hand does not last.
--
-- It runs as the role that writes, and the search path is that role's: so every name in it is qualified. What can fail
-- is in a block that catches it, and the write goes on; nothing is sent in such a block, where a NOTIFY costs more. Each
-- session compiles it for each table: so it is short, and what it can leave to others it does.
DECLARE
    payload  pg_catalog.text;
    payloads pg_catalog.text[];
    nothing  pg_catalog.record;
BEGIN
    BEGIN
        payloads := {payloads};
    EXCEPTION WHEN others OR assert_failure THEN
        BEGIN
            payloads := {recovered};
        EXCEPTION WHEN others OR assert_failure THEN
            {unnumbered}
            payloads := ARRAY[payload];
        END;
    END;
    FOREACH payload IN ARRAY payloads LOOP
        IF {delivered} IS NULL THEN NULL; END IF;
    END LOOP;
    RETURN nothing;
END
