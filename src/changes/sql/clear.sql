-- What an earlier build made is made again, but for the functions of tables, whose triggers work meanwhile.
DO $$
DECLARE
    part text;
BEGIN
    FOR part IN
        SELECT format('DROP EVENT TRIGGER %I', evtname) FROM pg_event_trigger
        WHERE evtfoid IN (SELECT oid FROM pg_proc WHERE pronamespace = 'notifyman'::regnamespace)
        UNION ALL
        SELECT format('DROP FUNCTION %s', oid::regprocedure) FROM pg_proc
        WHERE pronamespace = 'notifyman'::regnamespace AND prorettype <> 'trigger'::regtype
          AND concat(proname, '(', pg_get_function_identity_arguments(oid), ')') <> ALL (ARRAY[{known}])
    LOOP
        EXECUTE part;
    END LOOP;
    -- Of version 1.
    IF to_regclass('notifyman.installation') IS NOT NULL THEN
        DROP TABLE notifyman.installation;
    END IF;
END $$;
