-- Appends each row that is written to the log. `notifyman build` replaces this function, so a manual change does not last.
--
-- It runs as the role that writes, with that role's search path, so every name is qualified. Operations that can fail are in a
-- block that catches the error, so that the write succeeds. Changes are appended outside that block, where an INSERT uses no
-- transaction id of its own. Calls that need a privilege are in statements of their own, which are not reached without it.
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
    END;
    IF payload IS NOT NULL THEN
        IF notifyman.append_change(payload) IS NOT NULL THEN
            RETURN nothing;
        END IF;
    END IF;
    BEGIN
        payload := {reduced};
    EXCEPTION WHEN others OR assert_failure THEN
        {unnumbered}
    END;
    IF notifyman.append(payload) IS NULL THEN NULL; END IF;
    RETURN nothing;
END
