-- Returns the sessions that hold a lock on a table, except readers: process, application, state and query.
SELECT l.pid, coalesce(nullif(a.application_name, ''), a.backend_type), a.state, left(a.query, 200)
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.relation = to_regclass({table}) AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
    AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') ORDER BY a.query_start LIMIT 3
