DO $$
DECLARE
    part text;
BEGIN
    FOR part IN
        SELECT format('DROP FUNCTION %s', oid::regprocedure) FROM pg_proc
        WHERE pronamespace = 'notifyman'::regnamespace AND prorettype = 'trigger'::regtype
          AND proname NOT IN ('rows', 'insert_keys', 'update_keys', 'delete_keys', 'row_keys', 'truncated', 'markers')
          -- NOT EXISTS could compare each function with each trigger.
          AND oid NOT IN (SELECT tgfoid FROM pg_trigger)
    LOOP
        EXECUTE part;
    END LOOP;
END $$;
