f AS MATERIALIZED (
    SELECT number, payload FROM (
        -- The rows of transactions that the first snapshot lists as running, and that the second one sees.
        SELECT l.number, l.payload FROM unnest('{{ended}}'::bigint[]) x (xid), LATERAL (
            SELECT number, payload FROM notifyman.log
            WHERE log.xid = x.xid AND number > greatest({number}, (SELECT floor FROM e))
            ORDER BY number LIMIT {count}) l
        UNION ALL (
            -- The index of numbers must be used, regardless of statistics: the index of transactions would need a sort.
            SELECT number, payload FROM notifyman.log
            WHERE number > greatest({number}, {first} - 1, (SELECT floor FROM e)) AND number <= {end}
                AND xid + 0 >= {xmax} AND txid_visible_in_snapshot(xid, '{to}')
            ORDER BY number LIMIT {count})
    ) n ORDER BY number LIMIT {count}
), g AS MATERIALIZED (
    SELECT number, payload, sum(octet_length(payload)) OVER (ORDER BY number) - octet_length(payload) AS before FROM f
), w AS MATERIALIZED (
    SELECT count(*) < {count} AND coalesce(max(before), 0) <= {bytes} AS is_whole, NULL::bigint AS first FROM g
), r AS (
    SELECT number, payload FROM g WHERE before <= {bytes}
)
