-- The transaction id is taken before the number. Readers depend on that order.
        CASE WHEN pg_catalog.txid_current() IS NOT NULL THEN pg_catalog.nextval('notifyman.number') END
