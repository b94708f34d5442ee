    -- Tables of any kind that can have a trigger, in users' schemas, without those of extensions.
    c.relkind IN ('r', 'p', 'f')
    AND c.relpersistence <> 't'
    AND n.nspname <> 'notifyman' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
