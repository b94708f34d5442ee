-- Raises an error if a change could not be appended to the log, so that it is not attempted. A trigger function calls it with
-- constants, in the block that catches errors. It is evaluated when the expression is planned, and again after any of these
-- objects was changed.
BEGIN
    IF pg_catalog.has_table_privilege(log_0, 'INSERT') AND pg_catalog.has_table_privilege(log_1, 'INSERT')
        AND pg_catalog.has_table_privilege(log_2, 'INSERT') AND pg_catalog.has_sequence_privilege(number, 'USAGE')
        AND pg_catalog.has_sequence_privilege(log_table, 'SELECT')
        AND pg_catalog.has_sequence_privilege(log_full, 'SELECT')
        AND pg_catalog.has_sequence_privilege(log_full, 'UPDATE')
        AND pg_catalog.has_sequence_privilege(log_dropped, 'USAGE')
        AND pg_catalog.has_schema_privilege('notifyman', 'USAGE') THEN
        RETURN true;
    END IF;
    RAISE insufficient_privilege USING MESSAGE = 'notifyman: the log cannot be written';
END
