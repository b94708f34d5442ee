IF log_table OPERATOR(pg_catalog.=) 0 THEN
            INSERT INTO notifyman.log_0 (xid, number, payload) VALUES (pg_catalog.txid_current(), number, payload);
            {then};
        ELSIF log_table OPERATOR(pg_catalog.=) 1 THEN
            INSERT INTO notifyman.log_1 (xid, number, payload) VALUES (pg_catalog.txid_current(), number, payload);
            {then};
        ELSIF log_table OPERATOR(pg_catalog.=) 2 THEN
            INSERT INTO notifyman.log_2 (xid, number, payload) VALUES (pg_catalog.txid_current(), number, payload);
            {then};
        END IF;
        {first}log_table := notifyman.log_table_if_room();
        IF log_table IS NULL THEN
            {then};
        END IF;
