payload := pg_catalog.json_build_object('number',
                (EXTRACT(epoch FROM pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) -1000000)::bigint,
                'table_schema', TG_TABLE_SCHEMA, 'table_name', TG_TABLE_NAME, 'session_user', session_user, 'method', TG_OP,
                'old_data', NULL, 'new_data', NULL, 'query', NULL, 'truncated', 'key');
