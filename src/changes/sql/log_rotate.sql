-- Truncates tables with old rows, switches to the next table, and marks the time.
DO $$
#variable_conflict use_variable
DECLARE
    keep_for   interval := '{keep_for} milliseconds';
    keep_size  bigint := {keep_size};
    era        notifyman.era;
    mark       notifyman.mark;
    written    bigint;       -- the generation of the table that is written
    dropped    bigint;
    last       bigint;
    newest     bigint;
    running    bigint[];
    next       bigint;
    is_empty   boolean;
    is_needed  boolean;
    has_rows   boolean;
BEGIN
    SET LOCAL enable_seqscan = off;
    BEGIN
        -- One rotation at a time. Readers are not delayed.
        LOCK TABLE notifyman.era IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
    EXCEPTION WHEN lock_not_available THEN
        RETURN;
    END;
    SELECT * INTO era FROM notifyman.era;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    written := pg_sequence_last_value('notifyman.log_table');
    -- These are read before this transaction has an id: each transaction that has drawn or counted by then has a lower id.
    dropped := coalesce(pg_sequence_last_value('notifyman.log_dropped'), 0);
    last := coalesce(pg_sequence_last_value('notifyman.number'), 0);

    -- The two tables that are not written, from the older one on. Each is truncated as a whole.
    FOR generation IN written - 2 .. written - 1 LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM notifyman.log_%s)', generation % 3) INTO has_rows;
        CONTINUE WHEN NOT has_rows;
        EXIT WHEN NOT coalesce(
            (SELECT min(m.at) FROM notifyman.mark m WHERE m.generation > generation) <= clock_timestamp() - keep_for, false)
            AND pg_total_relation_size('notifyman.log_0') + pg_total_relation_size('notifyman.log_1')
                + pg_total_relation_size('notifyman.log_2') < keep_size
            AND generation >= (SELECT min(m.generation) FROM notifyman.mark m);
        BEGIN
            {lock}
            -- A row that a reader has not read, of an era that it can read. Uses the index of transactions.
            EXECUTE format($q$
                SELECT EXISTS (SELECT FROM notifyman.position p JOIN notifyman.start t ON t.id::text = split_part(p.place, '.', 4)
                    WHERE p.moved_at > clock_timestamp() - $1 AND EXISTS (
                        SELECT FROM notifyman.log_%1$s l WHERE l.number + 0 > $2 AND l.xid >= txid_snapshot_xmax(p.snapshot)
                        UNION ALL
                        SELECT FROM notifyman.log_%1$s l WHERE l.number + 0 > $2
                            AND l.xid = ANY (ARRAY(SELECT txid_snapshot_xip(p.snapshot)))))
                $q$, generation % 3) INTO is_needed USING keep_for, era.floor;
            EXIT WHEN is_needed;
            EXECUTE format('SELECT max(xid) FROM notifyman.log_%s WHERE number > $1', generation % 3) INTO newest USING era.floor;
            -- The transactions up to the newest one of which no row is removed. A position that has not seen one of the
            -- others has a gap.
            newest := greatest(newest + 1, txid_snapshot_xmax(era.truncated));
            EXECUTE format($q$
                SELECT ARRAY(SELECT c.xid FROM (
                        SELECT txid_snapshot_xip(txid_current_snapshot())
                        UNION SELECT txid_snapshot_xip(p.snapshot) FROM notifyman.position p
                        UNION SELECT txid_snapshot_xip($2)) c (xid)
                    WHERE c.xid < $1 AND NOT txid_visible_in_snapshot(c.xid, $2)
                        AND NOT EXISTS (SELECT FROM notifyman.log_%s l WHERE l.xid = c.xid AND l.number > $3)
                    ORDER BY c.xid)
                $q$, generation % 3) INTO running USING newest, era.truncated, era.floor;
            UPDATE notifyman.era SET truncated = concat(coalesce(running[1], newest), ':', newest, ':',
                array_to_string(running, ','))::txid_snapshot RETURNING * INTO era;
            EXECUTE format('TRUNCATE notifyman.log_%s', generation % 3);
            PERFORM setval('notifyman.log_full', 1);
            DELETE FROM notifyman.mark m WHERE m.generation <= generation;
        EXCEPTION WHEN lock_not_available THEN
            -- A transaction that has written to the table is open, so it is truncated later.
            NULL;
        END;
    END LOOP;

    SELECT * INTO mark FROM notifyman.mark m ORDER BY m.at DESC LIMIT 1;
    -- The next empty table, after one that could not be truncated.
    FOR generation IN written + 1 .. written + 2 LOOP
        next := generation;
        EXECUTE format('SELECT NOT EXISTS (SELECT FROM notifyman.log_%s)', generation % 3) INTO is_empty;
        EXIT WHEN is_empty;
    END LOOP;
    EXECUTE format('SELECT EXISTS (SELECT FROM notifyman.log_%s)', written % 3) INTO has_rows;
    IF is_empty AND has_rows AND (
        pg_total_relation_size(format('notifyman.log_%s', written % 3)::regclass) >= keep_size / 3
        OR coalesce((SELECT min(m.at) FROM notifyman.mark m WHERE m.generation = written), era.began_at)
            <= clock_timestamp() - keep_for / 2)
    THEN
        PERFORM setval('notifyman.log_table', next);
        written := next;
    ELSIF mark.number = last OR mark.at > clock_timestamp() - least(interval '1 minute', keep_for / 100) THEN
        RETURN;
    END IF;
    INSERT INTO notifyman.mark (at, generation, number, dropped, xid, snapshot)
        VALUES (clock_timestamp(), written, last, dropped, txid_current(), txid_current_snapshot());
END $$
