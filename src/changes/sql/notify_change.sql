-- For triggers that still run as they did with delivery by the log. A row that is too long for NOTIFY becomes a marker.
DECLARE
    number pg_catalog.int8 := pg_catalog.nextval('notifyman.number');
BEGIN
    PERFORM notifyman.append(pg_catalog.concat('{"number":', number, change, ',"query":null}'));
    RETURN number;
END
