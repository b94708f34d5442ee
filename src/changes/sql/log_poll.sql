-- Returns the new rows since a position, or the next rows of a batch, in two results.
--
-- The first result contains the number of dropped changes. It is read before the snapshot of the second result, so each
-- transaction that has counted a dropped change had begun by then. If the number differs from that in the position, or the
-- position is of another era, where a crash may have set the number back, a transaction id follows that is taken afterwards. The
-- second result is of one snapshot, which it contains, since a second statement would have another snapshot.
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
SET LOCAL jit = off;
SELECT NULL::bigint, concat_ws(' ', d.dropped, CASE WHEN d.dropped = 0
        OR d.dropped = {dropped} AND EXISTS (SELECT FROM notifyman.start WHERE id = {start}) THEN 0 ELSE txid_current() END)
FROM (SELECT coalesce(pg_sequence_last_value('notifyman.log_dropped'), 0) AS dropped OFFSET 0) d;
WITH s AS MATERIALIZED (
    SELECT txid_current_snapshot() AS snapshot, c.system_identifier, d.oid AS database
    FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()
), e AS MATERIALIZED (
    SELECT e.floor, e.truncated, e.bound, t.id
    FROM notifyman.era e JOIN s ON e.system_identifier = s.system_identifier AND e.database = s.database
        JOIN notifyman.start t ON t.started = pg_postmaster_start_time()
    WHERE e.relation = e.tableoid AND e.timeline = left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
), {rows}
SELECT NULL::bigint AS number, concat_ws(' ', e.id IS NOT NULL, s.system_identifier, s.database, coalesce(e.id, 0),
        EXISTS (SELECT FROM notifyman.start WHERE id = {start}), s.snapshot, coalesce(e.truncated, '1:1:'),
        coalesce(e.bound, 0), coalesce(pg_sequence_last_value('notifyman.number'), 0), coalesce(w.first, 0), w.is_whole)
        AS payload
    FROM s LEFT JOIN e ON true CROSS JOIN w
UNION ALL
SELECT r.number, r.payload FROM r
ORDER BY number NULLS FIRST
