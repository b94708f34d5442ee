-- Appends the changes of a statement to the log: the keys of the rows before and after, each once. Any role may call this
-- function. It runs as its owner, which alone may write to the tables, so it only takes plain values, and qualifies every name:
-- it calls nothing that a user could have created.
DECLARE
    keys      pg_catalog.text[];
    number    pg_catalog.int8;
    log_table pg_catalog.int8;
    payload   pg_catalog.text;
    payloads  pg_catalog.text[];
BEGIN
    IF old_keys IS NULL OR old_keys OPERATOR(pg_catalog.=) new_keys THEN
        keys := new_keys;
    ELSIF new_keys IS NULL THEN
        keys := old_keys;
    END IF;
    IF pg_catalog.cardinality(keys) OPERATOR(pg_catalog.=) 0 THEN
        RETURN true;
    END IF;
    -- Most statements write one row.
    IF pg_catalog.cardinality(keys) OPERATOR(pg_catalog.=) 1 AND pg_catalog.octet_length(keys[1]) OPERATOR(pg_catalog.<) 7999
        AND pg_catalog.pg_partition_root(relation) IS NULL THEN
        number :=
        {number};
        payload := pg_catalog.concat('{"number":', number,
            ',"table_schema":', pg_catalog.to_json(table_schema), ',"table_name":', pg_catalog.to_json(table_name),
            ',"session_user":', pg_catalog.to_json(session_user), ',"method":"', method,
            '","old_data":null,"new_data":null,"query":', {query}, ',"keys":[', keys[1], ']}');
        IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.<=) 7999 THEN
            payloads := ARRAY[payload];
        END IF;
    END IF;
    IF payloads IS NULL AND pg_catalog.txid_current() IS NOT NULL THEN
        -- Only operations that can fail are in a block. An INSERT in it would use a transaction id for each row.
        BEGIN
            payloads := notifyman.payloads(relation, table_schema, table_name, method, old_keys, new_keys);
        EXCEPTION WHEN others OR assert_failure THEN
            payloads := ARRAY[notifyman.payload(relation, table_schema, table_name, method, NULL, NULL, 'key', 7999)];
        END;
    END IF;
    FOREACH payload IN ARRAY payloads LOOP
        -- A payload begins with `{"number":` and its number.
        number := pg_catalog.substr(payload, 11, pg_catalog.strpos(payload, ',') OPERATOR(pg_catalog.-) 11)::pg_catalog.int8;
        log_table :=
        {table};
        LOOP
        {insert}
        END LOOP;
    END LOOP;
    RETURN true;
END
