-- Reports a write without its rows. It runs as the role that writes, so every name is qualified.
DECLARE
    payload pg_catalog.text;
    nothing pg_catalog.record;
BEGIN
    BEGIN
        payload := {payload};
    EXCEPTION WHEN others OR assert_failure THEN
        {unnumbered}
    END;
    IF {delivered} IS NULL THEN NULL; END IF;
    RETURN nothing;
END
