-- Reports each row that is written. `notifyman build` makes it, and makes it again, so a change by hand does not last.
--
-- It runs as the role that writes, and the search path is that role's: so every name in it is qualified. What can fail
-- is in a block that catches it, and the write goes on; nothing is sent in such a block, where a NOTIFY costs more. Each
-- session compiles it for each table: so it is short, and what it can leave to others it does.
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
    END;{spill}
    -- To send is part of the condition, which saves each session a plan for each table.
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
