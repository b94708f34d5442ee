-- Terminates the last session of this reader, if the server has not noticed its loss yet.
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND objsubid = 1 AND (classid::bigint << 32) | objid::bigint = hashtextextended({name}, 1852798058) AND pid = {backend};
