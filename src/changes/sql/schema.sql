-- Everything that notifyman has in a database lies in this schema, but for the triggers themselves.
CREATE SCHEMA IF NOT EXISTS notifyman;
REVOKE ALL ON SCHEMA notifyman FROM PUBLIC;
COMMENT ON SCHEMA notifyman IS
    'Tells of table changes by NOTIFY. Made by `notifyman build`; `notifyman teardown` removes it and its triggers.';

-- What an earlier build made is made anew, but for the tables' triggers and their functions, which go on meanwhile, and
-- for what hasn't been read yet.
DO $$
DECLARE
    part text;
BEGIN
    FOR part IN
        SELECT format('DROP EVENT TRIGGER %I', evtname) FROM pg_catalog.pg_event_trigger
        WHERE evtfoid IN (SELECT oid FROM pg_catalog.pg_proc WHERE pronamespace = 'notifyman'::pg_catalog.regnamespace)
        UNION ALL
        SELECT format('DROP FUNCTION %s', oid::pg_catalog.regprocedure) FROM pg_catalog.pg_proc
        WHERE pronamespace = 'notifyman'::pg_catalog.regnamespace
          AND prorettype <> 'pg_catalog.trigger'::pg_catalog.regtype
    LOOP
        EXECUTE part;
    END LOOP;
    -- Of another version; this one's stays, with the rights that somebody gave to it.
    IF (SELECT string_agg(attname, ' ' ORDER BY attname COLLATE "C") FROM pg_catalog.pg_attribute
        WHERE attrelid = to_regclass('notifyman.installation') AND attnum > 0 AND NOT attisdropped)
        <> 'delivery except_schemas except_tables fingerprint functions installed_at installed_by only_row oversize '
            'replicated schema_events schemas shape tables version with_query' THEN
        DROP TABLE notifyman.installation;
    END IF;
END $$;

-- One row: which version this is, and what it was asked for.
CREATE TABLE IF NOT EXISTS notifyman.installation (
    only_row       boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    version        integer     NOT NULL,
    fingerprint    text        NOT NULL,  -- of the SQL that made it
    functions      text        NOT NULL,  -- a digest of the functions below, to see when somebody changed one
    schemas        text[]      NOT NULL,  -- globs; none is all
    tables         text[]      NOT NULL,
    except_schemas text[]      NOT NULL,
    except_tables  text[]      NOT NULL,
    shape          text        NOT NULL CHECK (shape IN ('rows', 'keys')),
    oversize       text        NOT NULL CHECK (oversize IN ('key', 'marker', 'spill')),
    delivery       text        NOT NULL CHECK (delivery IN ('notify', 'table')),
    with_query     boolean     NOT NULL,
    schema_events  boolean     NOT NULL,
    replicated     boolean     NOT NULL,
    installed_at   timestamptz NOT NULL,
    installed_by   name        NOT NULL
);

DELETE FROM notifyman.installation;

-- Numbers every change, so that no two payloads are equal: PostgreSQL folds equal ones of one transaction.
CREATE SEQUENCE IF NOT EXISTS notifyman.number;

-- Payloads that are too long for NOTIFY, with `--oversize spill`. The workers read and clear it.
CREATE TABLE IF NOT EXISTS notifyman.spilled (
    number     bigint      NOT NULL,
    payload    text        NOT NULL,
    written_at timestamptz NOT NULL DEFAULT pg_catalog.statement_timestamp()
);

-- All payloads, with `--delivery table`. A worker reads and clears it.
CREATE TABLE IF NOT EXISTS notifyman.outbox (
    number     bigint      NOT NULL,
    payload    text        NOT NULL,
    written_at timestamptz NOT NULL DEFAULT pg_catalog.statement_timestamp()
);

-- Not unique: a sequence that somebody has set back must not fail a write. To ask for an index that is there takes the
-- table's lock all the same, which every transaction has that told something: so it is looked for first.
DO $$ BEGIN
    IF to_regclass('notifyman.spilled_number') IS NULL THEN
        CREATE INDEX spilled_number ON notifyman.spilled (number);
    END IF;
    IF to_regclass('notifyman.outbox_number') IS NULL THEN
        CREATE INDEX outbox_number ON notifyman.outbox (number);
    END IF;
END $$;
