DO $$
DECLARE
    part text;
BEGIN
    FOR part IN
        SELECT format('DROP FUNCTION %s', oid::regprocedure) FROM pg_proc
        WHERE pronamespace = 'notifyman'::regnamespace
    LOOP
        EXECUTE part;
    END LOOP;
END $$;
DROP TABLE IF EXISTS notifyman.installation, notifyman.spilled, notifyman.outbox;
DROP SEQUENCE IF EXISTS notifyman.number;
-- Refused where another program has put something into it.
DROP SCHEMA notifyman;
