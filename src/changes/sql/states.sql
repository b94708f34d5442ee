-- Follows `wanted.sql`: the state of each table, and the statements that make its triggers right.
, p AS (
    SELECT t.oid, g.tgname AS name, f.proname AS function, g.tgenabled AS enabled,
        g.tgtype AS type, g.tgqual IS NULL AND g.tgattr = '' AS is_plain
    FROM t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
        JOIN pg_proc f ON f.oid = g.tgfoid AND f.pronamespace = to_regnamespace('notifyman')
),
d AS (
    SELECT coalesce(w.oid, p.oid) AS oid, coalesce(w.name, p.name) AS name, w.oid IS NOT NULL AS is_wanted,
        p.oid IS NOT NULL AS is_present, w.clause, p.enabled, o.replicated, f.name AS function, f.name = w.exact AS is_exact,
        coalesce(w.type = p.type AND p.is_plain AND {enabled}, false)
            AS is_like,
        coalesce(f.name = p.function, false) AS is_right
    FROM w FULL JOIN p ON p.oid = w.oid AND p.name = w.name CROSS JOIN o,
        LATERAL (SELECT CASE WHEN {exists} THEN w.exact ELSE w.generic END AS name) f
),
e AS (
    SELECT d.oid,
        CASE WHEN NOT bool_or(is_wanted) THEN 'left over'
            WHEN NOT bool_or(is_present) THEN 'missing'
            WHEN NOT bool_and(is_wanted AND is_present AND is_like) THEN 'different'
            WHEN NOT bool_and(is_right) THEN 'outdated'
            WHEN bool_or(enabled = 'D') THEN 'disabled'
            WHEN NOT bool_and(is_exact) THEN 'generic'
            ELSE 'right' END AS state,
        bool_or(is_present) AND bool_and(coalesce(enabled = 'D', true)) AS is_disabled,
        coalesce(bool_or(function = 'markers'), false) AS is_unreadable
    FROM d GROUP BY d.oid)
, x AS (
    -- Triggers are enabled or disabled last, since the ALTER TABLE makes event triggers examine the table again.
    SELECT t.oid, string_agg(part.statement, '' ORDER BY part.n, d.name) AS statements
    FROM d JOIN e ON e.oid = d.oid JOIN t ON t.oid = d.oid,
        LATERAL (SELECT is_wanted AND is_present AND is_like AND current_setting('server_version_num')::int >= 140000
            AS is_replaced) r,
        LATERAL (VALUES
            (1, is_present AND NOT is_replaced, format(E'DROP TRIGGER %I ON %s;\n', d.name, t.sql_name)),
            (2, is_wanted, format('CREATE %sTRIGGER %I ' || d.clause || E' EXECUTE FUNCTION notifyman.%I();\n',
                CASE WHEN is_replaced THEN 'OR REPLACE ' ELSE '' END, d.name, t.sql_name, d.function)),
            (3, is_wanted AND (e.is_disabled OR d.replicated), format(E'ALTER TABLE ONLY %s %s TRIGGER %I;\n', t.sql_name,
                CASE WHEN e.is_disabled THEN 'DISABLE' ELSE 'ENABLE ALWAYS' END, d.name))
        ) AS part (n, applies, statement)
    WHERE part.applies AND NOT (is_wanted AND is_present AND is_like AND is_right)
    GROUP BY t.oid
)
SELECT t.oid, t.sql_name, t.nspname, t.relname, e.state, x.statements, e.is_unreadable
FROM e JOIN t ON t.oid = e.oid LEFT JOIN x ON x.oid = e.oid
