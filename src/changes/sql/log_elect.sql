WITH held AS MATERIALIZED (
    SELECT objid, pid FROM pg_locks
    WHERE locktype = 'advisory' AND classid = 1852798057 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT r.leads, CASE
    WHEN r.leads THEN EXISTS (SELECT FROM held WHERE objid = 4 AND pid <> pg_backend_pid())
    WHEN EXISTS (SELECT FROM held WHERE objid = 4 AND pid = pg_backend_pid()) THEN false
    -- This is false. In `.. AND false` the planner would remove the call.
    ELSE pg_try_advisory_lock_shared(1852798057, 4) IS NULL END
FROM (SELECT CASE WHEN EXISTS (SELECT FROM held WHERE objid = 3 AND pid = pg_backend_pid()) THEN true
    ELSE pg_try_advisory_lock(1852798057, 3) END AS leads OFFSET 0) r
