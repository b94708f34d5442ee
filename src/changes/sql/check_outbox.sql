-- Fails if the outbox of an earlier version is not empty, since its workers cannot read the log. Writers wait until this
-- transaction has ended.
DO $$
DECLARE
    unread bigint := (SELECT count(*) FROM notifyman.outbox);
BEGIN
    IF unread = 0 THEN
        LOCK TABLE notifyman.outbox IN ACCESS EXCLUSIVE MODE;
        unread := (SELECT count(*) FROM notifyman.outbox);
    END IF;
    IF unread > 0 THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('the outbox of an earlier version holds %s changes that no worker has read', unread),
            HINT = 'Run the worker of that version until it is empty, or discard them with --discard-outbox.';
    END IF;
END $$;
