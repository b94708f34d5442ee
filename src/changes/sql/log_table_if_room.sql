-- Returns which of the log's tables is written, by the log's size; NULL where it has no room. It marks that the log is full,
-- or no longer, and counts what a writer does not append. It runs as its owner, which alone may mark and count.
BEGIN
    IF pg_catalog.pg_total_relation_size('notifyman.log_0')
        OPERATOR(pg_catalog.+) pg_catalog.pg_total_relation_size('notifyman.log_1')
        OPERATOR(pg_catalog.+) pg_catalog.pg_total_relation_size('notifyman.log_2') OPERATOR(pg_catalog.>=) {most} THEN
        IF pg_catalog.pg_sequence_last_value('notifyman.log_full') OPERATOR(pg_catalog.<>) 2 THEN
            PERFORM pg_catalog.setval('notifyman.log_full', 2);
        END IF;
        PERFORM pg_catalog.nextval('notifyman.log_dropped');
        RETURN NULL;
    END IF;
    IF pg_catalog.pg_sequence_last_value('notifyman.log_full') OPERATOR(pg_catalog.=) 2 THEN
        PERFORM pg_catalog.setval('notifyman.log_full', 1);
    END IF;
    RETURN coalesce(pg_catalog.pg_sequence_last_value('notifyman.log_table') OPERATOR(pg_catalog.%) 3, 0);
END
