    -- `*` matches any text, `?` any character. A pattern matches a table's name, or schema.name.
    (o.schemas = '{}' OR EXISTS (
        SELECT FROM pg_catalog.unnest(o.schemas) g WHERE {schema} LIKE {glob}))
    AND (o.tables = '{}' OR EXISTS (
        SELECT FROM pg_catalog.unnest(o.tables) g
        WHERE {name} LIKE {glob} OR {schema} || '.' || {name} LIKE {glob}))
