
-- All payloads, with `--delivery table`. A worker reads and clears it. (With the identity it can be cleared also where
-- it is published.) Its index is not unique: a sequence that was set back must not make a write fail. To ask for one that
-- is there takes the table's lock all the same, which every transaction has that reported something: so it is looked for.
CREATE TABLE IF NOT EXISTS notifyman.outbox (
    number     bigint      NOT NULL,
    payload    text        NOT NULL,
    written_at timestamptz NOT NULL DEFAULT pg_catalog.statement_timestamp()
);
DO $$ BEGIN
    IF to_regclass('notifyman.outbox_number') IS NULL THEN
        CREATE INDEX outbox_number ON notifyman.outbox (number);
    END IF;
    IF (SELECT relreplident FROM pg_class WHERE oid = 'notifyman.outbox'::regclass) <> 'f' THEN
        ALTER TABLE notifyman.outbox REPLICA IDENTITY FULL;
    END IF;
END $$;
GRANT INSERT ON notifyman.outbox TO {owner};
