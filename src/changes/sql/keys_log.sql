-- Appends to the log which rows a statement wrote, by their keys; or one row, where triggers of statements are not possible.
-- `notifyman build` makes it, and makes it again, so a change by hand does not last.
--
-- It runs as the role that writes, and the search path is that role's: so every name in it is qualified. What can fail
-- is in a block that catches it, and the write goes on; nothing is appended in such a block, where an INSERT takes a
-- transaction number.
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
