-- Returns the tables, sequences and event triggers of an installation, as the fields of `Objects`.
WITH o AS (
    SELECT oid, relname, relkind, relpersistence FROM pg_class WHERE relnamespace = to_regnamespace('notifyman')
)
SELECT row_to_json(objects) FROM (
    SELECT to_regclass('notifyman.number') IS NOT NULL AS has_sequence,
        to_regclass('notifyman.outbox') IS NOT NULL AS has_outbox,
        to_regclass('notifyman.spilled') IS NOT NULL AS has_spilled,
        coalesce(has_schema_privilege('public', to_regnamespace('notifyman')::oid, 'USAGE'), false) AS is_open,
        count(*) AS event_triggers,
        count(*) FILTER (WHERE e.evtenabled = 'D') AS disabled_event_triggers,
        (SELECT string_agg(DISTINCT quote_ident(pubname), ', ') FROM pg_publication_tables WHERE schemaname = 'notifyman')
            AS publications,
        (SELECT string_agg(name, ', ') FROM unnest(ARRAY['log_0', 'log_1', 'log_2', 'log_0_xid', 'log_1_xid', 'log_2_xid',
                'log_0_number', 'log_1_number', 'log_2_number', 'log', 'era', 'start', 'mark', 'position', 'log_table',
                'log_full', 'log_dropped']) name
            WHERE NOT EXISTS (SELECT FROM o WHERE o.relname = name)) AS missing_of_log,
        EXISTS (SELECT FROM o WHERE relname = 'log_0' AND relpersistence = 'u') AS is_log_unlogged,
        NOT EXISTS (SELECT FROM o JOIN pg_sequence s ON s.seqrelid = o.oid
            WHERE relname = 'number' AND (seqcache <> 1 OR seqincrement <> 1 OR seqcycle)) AS is_ordered,
        coalesce((SELECT CASE WHEN relkind = 'S' AND has_sequence_privilege(oid, 'SELECT')
            THEN pg_sequence_last_value(oid) = 2 END FROM o WHERE relname = 'log_full'), false) AS is_log_full,
        coalesce((SELECT CASE WHEN relkind = 'S' AND has_sequence_privilege(oid, 'SELECT')
            THEN pg_sequence_last_value(oid) END FROM o WHERE relname = 'log_dropped'), 0) AS dropped,
        (SELECT coalesce(bool_and(CASE relkind WHEN 'S' THEN has_sequence_privilege(f.proowner, o.oid, w.privilege)
                ELSE has_table_privilege(f.proowner, o.oid, w.privilege) END), true)
            FROM pg_proc f, o, (VALUES ('log_0', 'INSERT'), ('log_1', 'INSERT'), ('log_2', 'INSERT'), ('number', 'USAGE'),
                ('log_table', 'SELECT'), ('log_full', 'SELECT'), ('log_full', 'UPDATE'), ('log_dropped', 'USAGE'))
                w (relname, privilege)
            WHERE f.pronamespace = to_regnamespace('notifyman') AND f.proname = 'append' AND w.relname = o.relname)
            AS may_append
    FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid
    WHERE p.pronamespace = to_regnamespace('notifyman')) objects
