
-- Numbers every change, so that no two payloads are equal: PostgreSQL folds equal ones of one transaction. Another owner
-- takes a lock that every transaction holds that reported something: so it is only given where it differs.
CREATE SEQUENCE IF NOT EXISTS notifyman.number;
DO $$ BEGIN
    IF (SELECT relowner FROM pg_class WHERE oid = 'notifyman.number'::regclass) <> {role}::regrole THEN
        ALTER SEQUENCE notifyman.number OWNER TO {owner};
    END IF;
END $$;
