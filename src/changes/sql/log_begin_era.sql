-- Begins an era, unless another reader has begun it, and records the start of the server.
DO $$
#variable_conflict use_variable
DECLARE
    system   bigint;
    timeline text := left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);
    dropped  bigint;
    last     bigint;
    is_empty boolean := false;
BEGIN
    LOCK TABLE notifyman.era IN EXCLUSIVE MODE;
    SELECT system_identifier INTO system FROM pg_control_system();
    IF NOT EXISTS (SELECT FROM notifyman.era e WHERE e.system_identifier = system AND e.timeline = timeline
            AND e.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND e.relation = e.tableoid) THEN
        -- These are read before this transaction has an id: each transaction that has drawn a number by then has a lower id.
        dropped := coalesce(pg_sequence_last_value('notifyman.log_dropped'), 0);
        last := coalesce(pg_sequence_last_value('notifyman.number'), 0);
        BEGIN
            {lock}
            TRUNCATE notifyman.log_0, notifyman.log_1, notifyman.log_2;
            PERFORM setval('notifyman.log_full', 1);
            -- No open transaction has written to the tables, since its lock would have conflicted.
            is_empty := true;
        EXCEPTION WHEN lock_not_available THEN
            -- The floor excludes earlier rows, and a rotation removes them.
            NULL;
        END;
        DELETE FROM notifyman.era;
        DELETE FROM notifyman.start;
        DELETE FROM notifyman.mark;
        INSERT INTO notifyman.era (system_identifier, timeline, database, relation, floor, bound, truncated)
            SELECT system, timeline, oid, 'notifyman.era'::regclass, CASE WHEN is_empty THEN 0 ELSE last END,
                CASE WHEN is_empty THEN 0 ELSE txid_current() END, '1:1:'
            FROM pg_database WHERE datname = current_database();
        INSERT INTO notifyman.mark (at, generation, number, dropped, xid, snapshot)
            SELECT clock_timestamp(), pg_sequence_last_value('notifyman.log_table'), last, dropped, txid_current(),
                txid_current_snapshot();
    END IF;
    INSERT INTO notifyman.start (started, id)
        SELECT pg_postmaster_start_time(), ('x' || left(replace(md5(random()::text || clock_timestamp() || pg_backend_pid()), '-', ''), 16))::bit(64)::bigint
        ON CONFLICT DO NOTHING;
END $$
