-- Reports each row that is written. `notifyman build` replaces this function, so a manual change does not last.
--
-- It runs as the role that writes, with that role's search path, so every name is qualified. Operations that can fail are in a
-- block that catches the error, so that the write succeeds. Payloads are sent outside that block, where a NOTIFY costs less.
-- Each session compiles the function for each table, so it is short, and calls others for most of the work.
DECLARE
    payload pg_catalog.text;
    nothing pg_catalog.record;
BEGIN
    BEGIN
        payload := {guarded};
    EXCEPTION WHEN others OR assert_failure THEN
        -- Another session has changed the type of a column. The whole row does not depend on it.
        BEGIN
            payload := {whole};
        EXCEPTION WHEN others OR assert_failure THEN
            payload := NULL;
        END;
    END;{spill}
    -- Sending in the condition saves each session a plan for each table.
    IF payload IS NULL OR pg_catalog.pg_notify('notifyman', payload) IS NULL THEN
        BEGIN
            payload := {reduced};
        EXCEPTION WHEN others OR assert_failure THEN
            {unnumbered}
        END;
        IF pg_catalog.pg_notify('notifyman', payload) IS NULL THEN NULL; END IF;
    END IF;
    RETURN nothing;
END
