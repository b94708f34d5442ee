-- Notifies a change for triggers that were built for the log and have not been replaced yet. A row that is too long for
-- NOTIFY becomes a marker.
DECLARE
    number pg_catalog.int8 := pg_catalog.nextval('notifyman.number');
BEGIN
    PERFORM notifyman.append(pg_catalog.concat('{"number":', number, change, ',"query":null}'));
    RETURN number;
END
