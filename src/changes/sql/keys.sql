-- Reports the rows that a statement wrote, by their keys; or one row, if statement triggers are not possible. `notifyman build`
-- replaces this function, so a manual change does not last.
--
-- It runs as the role that writes, with that role's search path, so every name is qualified. Operations that can fail are in a
-- block that catches the error, so that the write succeeds. Payloads are sent outside that block, where a NOTIFY costs less.
-- Each session compiles the function for each table, so it is short, and calls others for most of the work.
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
