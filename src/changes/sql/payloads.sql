-- Returns the payloads of a statement, with as many keys in each as NOTIFY accepts: the keys of the rows before and after, each
-- once.
--
-- Any role may call this function. It runs as its owner, which alone may use the sequence, so it only takes plain values, and
-- qualifies every name: it calls nothing that a user could have created.
DECLARE
    keys     pg_catalog.text[];
    key      pg_catalog.text;
    batch    pg_catalog.text;  -- keys of one payload
    batches  pg_catalog.text[];
    longest  pg_catalog.int4;
    room     pg_catalog.int4;
    many     pg_catalog.int4;
    payload  pg_catalog.text;
    payloads pg_catalog.text[];
    head     pg_catalog.text;
    query    pg_catalog.text;
BEGIN
    IF old_keys IS NULL OR old_keys OPERATOR(pg_catalog.=) new_keys THEN
        keys := new_keys;
    ELSIF new_keys IS NULL THEN
        keys := old_keys;
    ELSE
        keys := ARRAY(SELECT k FROM pg_catalog.unnest(old_keys) k UNION SELECT k FROM pg_catalog.unnest(new_keys) k);
    END IF;
    -- Most statements write one row.
    IF pg_catalog.cardinality(keys) OPERATOR(pg_catalog.=) 1 AND keys[1] IS NOT NULL
        AND pg_catalog.pg_partition_root(relation) IS NULL THEN
        payload := pg_catalog.concat('{"number":', pg_catalog.nextval('notifyman.number'),
            ',"table_schema":', pg_catalog.to_json(table_schema), ',"table_name":', pg_catalog.to_json(table_name),
            ',"session_user":', pg_catalog.to_json(session_user), ',"method":"', method,
            '","old_data":null,"new_data":null,"query":', {query}, ',"keys":[', keys[1], ']}');
        IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.<=) 7999 THEN
            RETURN ARRAY[payload];
        END IF;
    ELSIF pg_catalog.cardinality(keys) OPERATOR(pg_catalog.=) 0 THEN
        RETURN keys;
    END IF;

    head := pg_catalog.concat(',"table_schema":', pg_catalog.to_json(table_schema),
        ',"table_name":', pg_catalog.to_json(table_name));
    IF pg_catalog.pg_partition_root(relation)::pg_catalog.oid OPERATOR(pg_catalog.<>) relation THEN
        SELECT pg_catalog.concat(',"table_schema":', pg_catalog.to_json(n.nspname), ',"table_name":', pg_catalog.to_json(c.relname),
                ',"partition_schema":', pg_catalog.to_json(table_schema), ',"partition_name":', pg_catalog.to_json(table_name))
            INTO head
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
            WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.pg_partition_root(relation)::pg_catalog.oid;
    END IF;
    query := {query};{shorten}
    head := pg_catalog.concat(head, ',"session_user":', pg_catalog.to_json(session_user), ',"method":"', method,
        '","old_data":null,"new_data":null,"query":', query, ',"keys":');
    -- The rest of a payload is a number, brackets, and a marker if there are no keys.
    room := 7940 OPERATOR(pg_catalog.-) pg_catalog.octet_length(head);
    batch := pg_catalog.array_to_string(keys, ',');
    longest := (SELECT pg_catalog.max(pg_catalog.octet_length(k)) FROM pg_catalog.unnest(keys) k);
    -- For a row without a key, or with a very long one, only the table is reported.
    IF pg_catalog.array_position(keys, NULL) IS NOT NULL OR longest OPERATOR(pg_catalog.>=) room THEN
        RETURN ARRAY[pg_catalog.concat('{"number":', pg_catalog.nextval('notifyman.number'), head,
            CASE WHEN method OPERATOR(pg_catalog.=) 'TRUNCATE' THEN 'null}' ELSE 'null,"truncated":"key"}' END)];
    ELSIF pg_catalog.octet_length(batch) OPERATOR(pg_catalog.<) room THEN
        RETURN ARRAY[pg_catalog.concat('{"number":', pg_catalog.nextval('notifyman.number'), head, '[', batch, ']}')];
    ELSIF longest::bigint OPERATOR(pg_catalog.*) pg_catalog.cardinality(keys)
        OPERATOR(pg_catalog.<) (2 OPERATOR(pg_catalog.*) pg_catalog.octet_length(batch)::bigint) THEN
        -- Keys of similar length are divided into parts of equal number, which is fastest.
        many := room OPERATOR(pg_catalog./) (longest OPERATOR(pg_catalog.+) 1);
        RETURN ARRAY(
            SELECT pg_catalog.concat('{"number":', pg_catalog.nextval('notifyman.number'), head, '[',
                pg_catalog.array_to_string(keys[i:i OPERATOR(pg_catalog.+) many OPERATOR(pg_catalog.-) 1], ','), ']}')
            FROM pg_catalog.generate_series(1, pg_catalog.cardinality(keys), many) i);
    END IF;
    batch := NULL;
    FOREACH key IN ARRAY keys LOOP
        IF batch IS NULL THEN
            batch := key;
        ELSIF pg_catalog.octet_length(batch) OPERATOR(pg_catalog.+) pg_catalog.octet_length(key)
            OPERATOR(pg_catalog.<) room THEN
            batch := pg_catalog.concat(batch, ',', key);
        ELSE
            batches := pg_catalog.array_append(batches, batch);
            batch := key;
        END IF;
    END LOOP;
    FOREACH batch IN ARRAY pg_catalog.array_append(batches, batch) LOOP
        payloads := pg_catalog.array_append(payloads,
            pg_catalog.concat('{"number":', pg_catalog.nextval('notifyman.number'), head, '[', batch, ']}'));
    END LOOP;
    RETURN payloads;
END
