-- Reports a TRUNCATE. It runs as the role that writes: so every name in it is qualified.
DECLARE
    payload pg_catalog.text;
    nothing record;
BEGIN
    BEGIN
        payload := {payload};
    EXCEPTION WHEN others THEN
        {unnumbered}
    END;
    IF {delivered} IS NULL THEN NULL; END IF;
    RETURN nothing;
END
