-- Appends the keys of the rows that a statement wrote to the log; or one row, if statement triggers are not possible.
-- `notifyman build` replaces this function, so a manual change does not last.
--
-- It runs as the role that writes, with that role's search path, so every name is qualified. Operations that can fail are in a
-- block that catches the error, so that the write succeeds. Changes are appended outside that block, where an INSERT uses no
-- transaction id of its own.
DECLARE
    old_keys pg_catalog.text[];
    new_keys pg_catalog.text[];
    nothing  pg_catalog.record;
BEGIN
    BEGIN
        {keys}
    EXCEPTION WHEN others OR assert_failure THEN
        BEGIN
            {recovered}
        EXCEPTION WHEN others OR assert_failure THEN
            {unnumbered}
        END;
    END;
    IF notifyman.append_keys(TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP, old_keys, new_keys) IS NULL THEN NULL; END IF;
    RETURN nothing;
END
