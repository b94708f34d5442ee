-- Returns whether the server is a standby, and whether numbers are drawn in order.
SELECT pg_is_in_recovery(), (SELECT seqcache = 1 AND seqincrement = 1 AND NOT seqcycle
    FROM pg_sequence WHERE seqrelid = to_regclass('notifyman.number'))
