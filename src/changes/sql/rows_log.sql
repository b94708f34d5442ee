-- Appends each row that is written to the log. `notifyman build` makes it, and makes it again, so a change by hand does not
-- last.
--
-- It runs as the role that writes, and the search path is that role's: so every name in it is qualified. What can fail
-- is in a block that catches it, and the write goes on; nothing is appended in such a block, where an INSERT takes a
-- transaction number. What may not be called without a privilege is in a statement of its own, which is not reached then.
DECLARE
    payload pg_catalog.text;
    nothing pg_catalog.record;
BEGIN
    BEGIN
        payload := {guarded};
    EXCEPTION WHEN others OR assert_failure THEN
        -- A column has another type than when this session first wrote here. The row as a whole has none.
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
