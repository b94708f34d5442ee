(SELECT pg_catalog.concat('{', pg_catalog.string_agg(pg_catalog.concat(pg_catalog.to_json(a.attname), ':',
                coalesce(pg_catalog.row_to_json({row}) OPERATOR(pg_catalog.->) a.attname::pg_catalog.text, 'null')), ',' ORDER BY a.attnum), '}')
            FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) TG_RELID
              AND a.attnum OPERATOR(pg_catalog.=) ANY ((
                SELECT (pg_catalog.string_to_array(i.indkey::pg_catalog.text, ' ')::pg_catalog.int2[])[1:i.indnkeyatts]
                FROM pg_catalog.pg_index i
                WHERE i.indrelid OPERATOR(pg_catalog.=) TG_RELID AND (i.indisprimary OR i.indisreplident)
                ORDER BY i.indisprimary DESC LIMIT 1)::pg_catalog.int2[])
            HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0)
