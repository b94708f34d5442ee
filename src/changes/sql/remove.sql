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
DROP VIEW IF EXISTS notifyman.log;
DROP TABLE IF EXISTS notifyman.installation, notifyman.spilled, notifyman.outbox, notifyman.log_0, notifyman.log_1,
    notifyman.log_2, notifyman.era, notifyman.start, notifyman.mark, notifyman.position;
DROP SEQUENCE IF EXISTS notifyman.number, notifyman.log_table, notifyman.log_full, notifyman.log_dropped;
-- This fails if another program has created an object in the schema.
DROP SCHEMA notifyman;
