
    IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.>) {limit} THEN
        payload := notifyman.spill(payload);
    END IF;
