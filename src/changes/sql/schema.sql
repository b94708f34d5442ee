CREATE SCHEMA IF NOT EXISTS notifyman;
COMMENT ON SCHEMA notifyman IS {comment};
REVOKE ALL ON SCHEMA notifyman FROM PUBLIC;
GRANT USAGE ON SCHEMA notifyman TO PUBLIC, {owner};
-- A role that is not a superuser can transfer an object only to a role that may create it.
GRANT CREATE ON SCHEMA notifyman TO {owner};

-- Drops the objects of an earlier build that are created again. Trigger functions are kept, since triggers work meanwhile.
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
    -- This table is of version 1.
    IF to_regclass('notifyman.installation') IS NOT NULL THEN
        DROP TABLE notifyman.installation;
    END IF;
END $$;

-- Every change has a number, so that no two payloads are equal: PostgreSQL folds equal notifications of a transaction.
CREATE SEQUENCE IF NOT EXISTS notifyman.number;
-- The numbers of a row only increase if no session caches numbers.
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_sequence WHERE seqrelid = 'notifyman.number'::regclass
            AND (seqcache <> 1 OR seqincrement <> 1 OR seqcycle)) THEN
        ALTER SEQUENCE notifyman.number CACHE 1 INCREMENT 1 NO CYCLE;
    END IF;
END $$;
GRANT USAGE ON SEQUENCE notifyman.number TO {owner};
