CASE WHEN pg_catalog.octet_length(change) OPERATOR(pg_catalog.+) pg_catalog.octet_length(pg_catalog.to_json(pg_catalog.current_query())::pg_catalog.text)
            OPERATOR(pg_catalog.>) {limit} THEN 'null,"truncated":"query"'
            ELSE coalesce(pg_catalog.to_json(pg_catalog.current_query())::pg_catalog.text, 'null') END
