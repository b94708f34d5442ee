
    query   pg_catalog.text := CASE WHEN truncated IS NULL THEN pg_catalog.to_json(
        pg_catalog.left(pg_catalog.current_query(), max_bytes))::pg_catalog.text END;
