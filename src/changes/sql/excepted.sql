    (EXISTS (
        SELECT FROM pg_catalog.unnest(o.except_schemas) g WHERE {schema} LIKE {glob})
    OR EXISTS (
        SELECT FROM pg_catalog.unnest(o.except_tables) g
        WHERE {name} LIKE {glob} OR {schema} || '.' || {name} LIKE {glob}))
