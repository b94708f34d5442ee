
-- The log: three tables, one of which is written. Workers read them, and truncate the oldest. Rows are neither updated nor
-- deleted. Existing objects are kept, with their rows, values and privileges.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['log_0', 'log_1', 'log_2'] LOOP
        IF to_regclass('notifyman.' || name) IS NULL THEN
            EXECUTE format('CREATE {persistence} TABLE notifyman.%I (
                xid bigint NOT NULL, number bigint NOT NULL, payload text NOT NULL)', name);
        END IF;
        -- The index is not unique, since a sequence that was set back must not fail a write.
        IF to_regclass('notifyman.' || name || '_xid') IS NULL THEN
            EXECUTE format('CREATE INDEX %I ON notifyman.%I (xid, number)', name || '_xid', name);
        END IF;
        IF to_regclass('notifyman.' || name || '_number') IS NULL THEN
            EXECUTE format('CREATE INDEX %I ON notifyman.%I (number)', name || '_number', name);
        END IF;
    END LOOP;
    IF to_regclass('notifyman.log') IS NULL THEN
        CREATE VIEW notifyman.log AS
            SELECT xid, number, payload FROM notifyman.log_0
            UNION ALL SELECT xid, number, payload FROM notifyman.log_1
            UNION ALL SELECT xid, number, payload FROM notifyman.log_2;
    END IF;
    -- The current era of the log: one row, or none after a crash, a restored base backup or a promotion, each of which
    -- empties an unlogged table.
    IF to_regclass('notifyman.era') IS NULL THEN
        CREATE UNLOGGED TABLE notifyman.era (
            singleton         boolean PRIMARY KEY DEFAULT true CHECK (singleton),
            system_identifier bigint NOT NULL,
            timeline          text NOT NULL,
            database          oid NOT NULL,
            relation          oid NOT NULL,            -- this table: a restored dump has another
            floor             bigint NOT NULL,         -- rows up to this number are of an earlier era
            bound             bigint NOT NULL,         -- earlier transactions may have rows up to floor
            truncated         txid_snapshot NOT NULL,  -- sees all transactions with truncated rows; initially '1:1:'
            began_at          timestamptz NOT NULL DEFAULT pg_catalog.now()
        );
    END IF;
    -- The starts of the server in this era. A position contains the one in which it was taken.
    IF to_regclass('notifyman.start') IS NULL THEN
        CREATE UNLOGGED TABLE notifyman.start (started timestamptz PRIMARY KEY, id bigint NOT NULL UNIQUE);
    END IF;
    -- Snapshots by time, to replay from a time on, and for the age of the tables.
    IF to_regclass('notifyman.mark') IS NULL THEN
        CREATE UNLOGGED TABLE notifyman.mark (
            at         timestamptz PRIMARY KEY,
            generation bigint NOT NULL,
            number     bigint NOT NULL,
            dropped    bigint NOT NULL,
            xid        bigint NOT NULL,
            snapshot   txid_snapshot NOT NULL
        );
    END IF;
    IF to_regclass('notifyman.position') IS NULL THEN
        CREATE {persistence} TABLE notifyman.position (
            name     text PRIMARY KEY,
            place    text NOT NULL,
            snapshot txid_snapshot NOT NULL,  -- everything that it sees has been read
            moved_at timestamptz NOT NULL DEFAULT pg_catalog.now()
        );
    END IF;
    -- Sequences are not transactional, so writers see their values immediately, independent of snapshots.
    -- The value modulo 3 is the table that is written.
    IF to_regclass('notifyman.log_table') IS NULL THEN
        CREATE SEQUENCE notifyman.log_table;
        PERFORM setval('notifyman.log_table', 3);
    END IF;
    -- 1: there is room; 2: the log is full, and writers check its size each time.
    IF to_regclass('notifyman.log_full') IS NULL THEN
        CREATE SEQUENCE notifyman.log_full;
        PERFORM setval('notifyman.log_full', 1);
    END IF;
    -- The number of changes that were not appended.
    IF to_regclass('notifyman.log_dropped') IS NULL THEN
        CREATE SEQUENCE notifyman.log_dropped MINVALUE 0 START 0;
        PERFORM setval('notifyman.log_dropped', 0);
    END IF;
    -- A log that becomes logged or unlogged begins again, and all positions in it become invalid.
    IF (SELECT relpersistence FROM pg_class WHERE oid = 'notifyman.log_0'::regclass) <> '{relpersistence}' THEN
        TRUNCATE notifyman.log_0, notifyman.log_1, notifyman.log_2, notifyman.era, notifyman.start, notifyman.mark;
        FOREACH name IN ARRAY ARRAY['log_0', 'log_1', 'log_2', 'position'] LOOP
            EXECUTE format('ALTER TABLE notifyman.%I SET {set_persistence}', name);
        END LOOP;
    END IF;
END $$;
GRANT INSERT ON notifyman.log_0, notifyman.log_1, notifyman.log_2 TO {owner};
GRANT SELECT ON SEQUENCE notifyman.log_table TO {owner};
GRANT SELECT, UPDATE ON SEQUENCE notifyman.log_full TO {owner};
GRANT USAGE ON SEQUENCE notifyman.log_dropped TO {owner};
GRANT SELECT ON SEQUENCE notifyman.log_full, notifyman.log_dropped TO PUBLIC;
