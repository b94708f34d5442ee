    -- `*` matches any text, `?` any character. A pattern matches a table's name, or schema.name.
    (o.schemas = '{}' OR EXISTS (
        SELECT FROM pg_catalog.unnest(o.schemas) g WHERE n.nspname LIKE {glob}))
    AND NOT EXISTS (
        SELECT FROM pg_catalog.unnest(o.except_schemas) g WHERE n.nspname LIKE {glob})
    AND (o.tables = '{}' OR EXISTS (
        SELECT FROM pg_catalog.unnest(o.tables) g
        WHERE c.relname LIKE {glob} OR n.nspname || '.' || c.relname LIKE {glob}))
    AND NOT EXISTS (
        SELECT FROM pg_catalog.unnest(o.except_tables) g
        WHERE c.relname LIKE {glob} OR n.nspname || '.' || c.relname LIKE {glob})
