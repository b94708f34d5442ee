-- The transaction's number is taken before the row's: a reader depends on that order.
        CASE WHEN pg_catalog.txid_current() IS NOT NULL THEN pg_catalog.nextval('notifyman.number') END
