
    IF query IS NOT NULL THEN
        payload := pg_catalog.concat(pg_catalog.left(payload, -1 OPERATOR(pg_catalog.-) pg_catalog.length(query)), 'null,"truncated":"query"}');
        IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.<=) max_bytes THEN
            RETURN payload;
        END IF;
    END IF;
