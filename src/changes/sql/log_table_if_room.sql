-- Checks the size of the log. Returns the table that is written, or NULL if there is no room, and then counts the change as
-- dropped. It also records whether the log is full. It runs as its owner, which alone may do that.
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
