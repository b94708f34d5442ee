DO $$
DECLARE
    part text;
BEGIN
    FOR part IN
        SELECT format('DROP FUNCTION %s', oid::pg_catalog.regprocedure) FROM pg_catalog.pg_proc
        WHERE pronamespace = 'notifyman'::pg_catalog.regnamespace
    LOOP
        EXECUTE part;
    END LOOP;
END $$;
DROP TABLE IF EXISTS notifyman.installation, notifyman.spilled, notifyman.outbox;
DROP SEQUENCE IF EXISTS notifyman.number;
-- Refused where somebody else has put something into it.
DROP SCHEMA notifyman;
