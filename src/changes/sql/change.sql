pg_catalog.concat(CASE WHEN pg_catalog.pg_partition_root(TG_RELID) IS NULL THEN ',"table_schema":'
                ELSE notifyman.head_of_partition(TG_RELID) END, pg_catalog.to_json(TG_TABLE_SCHEMA),
            CASE WHEN pg_catalog.pg_partition_root(TG_RELID) IS NULL THEN ',"table_name":' ELSE ',"partition_name":' END,
            pg_catalog.to_json(TG_TABLE_NAME), ',"session_user":', pg_catalog.to_json(session_user),
            ',"method":"', TG_OP, '","old_data":', coalesce(pg_catalog.row_to_json(OLD), 'null'),
            ',"new_data":', coalesce(pg_catalog.row_to_json(NEW), 'null'))
