-- The table that is written; NULL if the size of the log must be checked first, which includes long payloads.
        CASE WHEN pg_catalog.pg_sequence_last_value('notifyman.log_full') OPERATOR(pg_catalog.=) 2
            OR (number OPERATOR(pg_catalog.&) {mask}) OPERATOR(pg_catalog.=) 0
            OR pg_catalog.octet_length({text}) OPERATOR(pg_catalog.>) {long} THEN NULL
        ELSE pg_catalog.pg_sequence_last_value('notifyman.log_table') OPERATOR(pg_catalog.%) 3 END
