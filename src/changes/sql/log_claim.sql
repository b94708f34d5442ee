{terminate}SELECT CASE WHEN NOT pg_try_advisory_lock(k.key) THEN coalesce((
        SELECT format('process %s, role %s, application %s', l.pid, a.usename, a.application_name)
        FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND l.objsubid = 1 AND (l.classid::bigint << 32) | l.objid::bigint = k.key AND l.granted LIMIT 1
    ), 'it has just ended') END AS holder, pg_backend_pid(), p.place, (extract(epoch FROM p.moved_at) * 1000)::bigint
FROM (SELECT hashtextextended({name}, 1852798058) AS key) k LEFT JOIN notifyman.position p ON p.name = {name}
