
-- Payloads that are too long for NOTIFY. The workers read and delete them. The table is unlogged, so that no publication
-- contains it. A crash of the server empties it.
CREATE UNLOGGED TABLE IF NOT EXISTS notifyman.spilled (
    number     bigint      NOT NULL,
    payload    text        NOT NULL,
    written_at timestamptz NOT NULL DEFAULT pg_catalog.statement_timestamp()
);
DO $$ BEGIN
    IF to_regclass('notifyman.spilled_number') IS NULL THEN
        CREATE INDEX spilled_number ON notifyman.spilled (number);
    END IF;
    IF (SELECT relpersistence FROM pg_class WHERE oid = 'notifyman.spilled'::regclass) <> 'u' THEN
        ALTER TABLE notifyman.spilled SET UNLOGGED;
    END IF;
END $$;
GRANT INSERT ON notifyman.spilled TO {owner};
