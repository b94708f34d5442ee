-- The index of transactions must be used, regardless of statistics: with the index of numbers the whole log would be read. Rows
-- of open transactions, which can be many, are not read.
c AS MATERIALIZED (
    SELECT number, payload FROM (
        SELECT number, payload FROM notifyman.log
        WHERE xid >= {xmax} AND xid < (SELECT txid_snapshot_xmax(snapshot) FROM s)
            AND txid_visible_in_snapshot(xid, (SELECT snapshot FROM s))
        UNION ALL
        SELECT number, payload FROM notifyman.log
        WHERE xid = ANY (ARRAY(SELECT x FROM unnest('{{running}}'::bigint[]) x, s WHERE txid_visible_in_snapshot(x, s.snapshot)))
    ) n WHERE number + 0 > (SELECT floor FROM e) LIMIT {count} + 1
), f AS MATERIALIZED (
    SELECT count(*) <= {count} AND coalesce(sum(octet_length(payload)), 0) <= {bytes} AS is_whole FROM c
), t AS MATERIALIZED (
    -- The first number of each transaction is read from the index.
    SELECT count(*) <= 1000 AS is_few, min(b.number) AS first FROM (
        WITH RECURSIVE x AS (
            (SELECT xid FROM notifyman.log
                WHERE xid >= {xmax} AND xid < (SELECT txid_snapshot_xmax(snapshot) FROM s) ORDER BY xid LIMIT 1)
            UNION ALL
            SELECT (SELECT l.xid FROM notifyman.log l
                WHERE l.xid > x.xid AND l.xid < (SELECT txid_snapshot_xmax(snapshot) FROM s) ORDER BY l.xid LIMIT 1)
            FROM x WHERE x.xid IS NOT NULL
        ) SELECT xid FROM x WHERE xid IS NOT NULL LIMIT 1001) x,
        LATERAL (SELECT l.number FROM notifyman.log l WHERE l.xid = x.xid ORDER BY l.number LIMIT 1) b
), w AS MATERIALIZED (
    -- The first number of the new rows, which is read only if it is needed. With very many transactions, all their rows are
    -- read.
    SELECT f.is_whole, CASE WHEN f.is_whole THEN NULL WHEN (SELECT is_few FROM t) THEN (SELECT first FROM t) ELSE (
        SELECT min(number + 0) FROM notifyman.log
        WHERE xid >= {xmax} AND xid < (SELECT txid_snapshot_xmax(snapshot) FROM s)
            AND txid_visible_in_snapshot(xid, (SELECT snapshot FROM s))) END AS first
    FROM f
), r AS (
    SELECT c.number, c.payload FROM c, f WHERE f.is_whole
)
