-- Returns the last mark before a time: snapshot, number of dropped changes, and bound.
--
-- A transaction that was running then may have a change that was not appended, unless no change was dropped since a mark from
-- before all of these transactions began.
SELECT m.snapshot, m.dropped, CASE WHEN m.dropped = coalesce((SELECT max(e.dropped) FROM notifyman.mark e
        WHERE e.xid < txid_snapshot_xmin(m.snapshot) AND e.at <= m.at), 0) THEN 0 ELSE m.xid END
FROM notifyman.mark m WHERE m.at <= to_timestamp({millis} / 1000.0) ORDER BY m.at DESC LIMIT 1
