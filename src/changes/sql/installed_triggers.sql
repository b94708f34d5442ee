-- Returns the tables with triggers of the installation: quoted name, and the statements that drop them.
SELECT format('%I.%I', n.nspname, c.relname),
    string_agg(format('DROP TRIGGER IF EXISTS %I ON %I.%I;', t.tgname, n.nspname, c.relname), ' ' ORDER BY tgname)
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace
    JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE f.nspname = 'notifyman' AND NOT t.tgisinternal GROUP BY 1 ORDER BY 1
